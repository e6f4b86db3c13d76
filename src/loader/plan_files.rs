//! [`PlanFiles`]: a model's files while its plan is made, which end with the load.

use super::{batch::CHUNK, ticket::Ticket};
use crate::{LoadError, ModelFiles};

/// Looks at the load before each chunk of a header, and does not rest: headers are short.
pub(super) struct PlanFiles<'a> {
    pub(super) files: &'a dyn ModelFiles,
    pub(super) ticket: &'a Ticket,
}

impl PlanFiles<'_> {
    fn ensure_wanted(&self) -> Result<(), LoadError> {
        if self.ticket.is_wanted() {
            Ok(())
        } else {
            Err(LoadError::Interrupted)
        }
    }
}

impl ModelFiles for PlanFiles<'_> {
    fn names(&self) -> Result<Vec<String>, LoadError> {
        self.ensure_wanted()?;
        self.files.names()
    }

    fn len(&self, name: &str) -> Result<u64, LoadError> {
        self.ensure_wanted()?;
        self.files.len(name)
    }

    fn read_at(&self, name: &str, offset: u64, buf: &mut [u8]) -> Result<(), LoadError> {
        let mut from = offset;
        for chunk in buf.chunks_mut(CHUNK) {
            self.ensure_wanted()?;
            self.files.read_at(name, from, chunk)?;
            from += chunk.len() as u64;
        }
        Ok(())
    }
}
