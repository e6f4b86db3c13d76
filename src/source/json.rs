//! JSON configurations out of a model's files.

use serde::de::DeserializeOwned;

use super::ModelFiles;
use crate::LoadError;

/// The longest configuration that is read, in bytes.
const MAX_JSON: u64 = 4 << 20;

/// Reads a JSON file of a model, for [`Pipeline::plan`](crate::Pipeline::plan).
///
/// ```
/// use bevy_candle::{LoadError, ModelFiles, read_json};
///
/// fn hidden_size(files: &dyn ModelFiles) -> Result<u64, LoadError> {
///     let config: serde_json::Value = read_json(files, "config.json")?;
///     Ok(config["hidden_size"].as_u64().unwrap_or(128))
/// }
/// ```
///
/// # Errors
/// [`LoadError::Json`], with line and column, where it is broken, or where it is larger than 4 MiB; and what `files`
/// itself says.
pub fn read_json<T: DeserializeOwned>(files: &dyn ModelFiles, file: &str) -> Result<T, LoadError> {
    let bytes = read_small(files, file)?;
    serde_json::from_slice(&bytes).map_err(|error| LoadError::json(file, error))
}

/// Reads a whole file, unless it is too long for a configuration.
pub(crate) fn read_small(files: &dyn ModelFiles, file: &str) -> Result<Vec<u8>, LoadError> {
    let length = files.len(file)?;
    if length > MAX_JSON {
        return Err(LoadError::json(
            file,
            format!("it has {length} bytes, {MAX_JSON} are allowed"),
        ));
    }
    let mut bytes = vec![0; length as usize];
    files.read_at(file, 0, &mut bytes)?;
    Ok(bytes)
}
