//! What can go wrong: [`LoadError`] for a load, [`InferError`] for a job.

use std::error::Error;

use crate::memory::Shortage;

mod infer;
mod load;

pub use infer::InferError;
pub use load::LoadError;

/// A boxed cause, so that an update of the library behind it is not a breaking change here.
pub type BoxedSource = Box<dyn Error + Send + Sync + 'static>;

/// What does not fit into the budget is the same for a load and for a job.
macro_rules! over_budget {
    ($($error:ident),*) => {$(
        impl From<Shortage> for $error {
            fn from(shortage: Shortage) -> Self {
                Self::OverBudget {
                    needed: shortage.needed,
                    budget: shortage.budget,
                    in_use: shortage.in_use,
                }
            }
        }
    )*};
}

over_budget!(LoadError, InferError);

/// Prints an error and its causes on one line.
///
/// ```
/// use bevy_candle::{ErrorChain, LoadError};
///
/// let error = LoadError::build(std::io::Error::other("no such layer"));
/// assert_eq!(ErrorChain(&error).to_string(), "failed to build the pipeline: no such layer");
/// ```
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl std::fmt::Debug for ErrorChain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self.0, f)
    }
}

impl std::fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
