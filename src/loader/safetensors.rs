//! Headers of safetensors files: names, shapes, formats and offsets, without one byte of weights.

use candle_core::DType;
use safetensors::tensor::{Dtype, Metadata};

use crate::{LoadError, ModelFiles};

/// The longest header that is read, in bytes: the format's own limit.
const MAX_HEADER: u64 = 100_000_000;

/// The length of the header's length.
const PREFIX: u64 = 8;

/// The header of one file.
pub(super) struct Header {
    pub(super) tensors: Metadata,
    /// Where the weights begin in the file.
    pub(super) data_start: u64,
}

/// Reads and checks the header of `file`, and that the file is as long as it says.
pub(super) fn read_header(files: &dyn ModelFiles, file: &str) -> Result<Header, LoadError> {
    let found = files.len(file)?;
    at_least(PREFIX, found, file)?;
    let length = header_length(files, file)?;
    let data_start = PREFIX + length;
    at_least(data_start, found, file)?;
    let mut header = vec![0; length as usize];
    files.read_at(file, PREFIX, &mut header)?;
    let tensors: Metadata =
        serde_json::from_slice(&header).map_err(|error| LoadError::header(file, error))?;
    let expected = data_start + tensors.data_len() as u64;
    at_least(expected, found, file)?;
    if found > expected {
        let reason = format!("{} bytes follow the last tensor", found - expected);
        return Err(LoadError::header(file, reason));
    }
    Ok(Header {
        tensors,
        data_start,
    })
}

fn header_length(files: &dyn ModelFiles, file: &str) -> Result<u64, LoadError> {
    let mut prefix = [0; PREFIX as usize];
    files.read_at(file, 0, &mut prefix)?;
    let length = u64::from_le_bytes(prefix);
    if length > MAX_HEADER {
        let reason = format!("its header claims {length} bytes, {MAX_HEADER} are allowed");
        return Err(LoadError::header(file, reason));
    }
    Ok(length)
}

fn at_least(expected: u64, found: u64, file: &str) -> Result<(), LoadError> {
    if found < expected {
        return Err(LoadError::CutShort {
            file: file.into(),
            expected,
            found,
        });
    }
    Ok(())
}

/// The format in which a stored tensor is read, where this crate can.
pub(super) fn readable(stored: Dtype) -> Option<DType> {
    Some(match stored {
        Dtype::BOOL | Dtype::U8 => DType::U8,
        Dtype::I16 => DType::I16,
        Dtype::I32 => DType::I32,
        Dtype::U32 => DType::U32,
        Dtype::I64 => DType::I64,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::MemoryFiles;

    fn file(header: &str, data: usize) -> MemoryFiles {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        MemoryFiles::new([("m.safetensors", bytes)])
    }

    const ONE: &str = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;

    #[test]
    fn a_header_gives_names_shapes_and_where_the_weights_begin() {
        let header = read_header(&file(ONE, 16), "m.safetensors").expect("a header");
        assert_eq!(header.data_start, 8 + ONE.len() as u64);
        assert_eq!(header.tensors.info("a").expect("the tensor").shape, [2, 2]);
    }

    #[test]
    fn a_file_that_is_cut_short_says_by_how_much() {
        let expected = 8 + ONE.len() as u64 + 16;
        let error = read_header(&file(ONE, 15), "m.safetensors")
            .err()
            .expect("an error");
        assert!(
            matches!(error, LoadError::CutShort { expected: e, found, .. } if e == expected && found == e - 1),
            "{error}"
        );
        let tiny = MemoryFiles::new([("m.safetensors", vec![1, 2, 3])]);
        assert!(matches!(
            read_header(&tiny, "m.safetensors"),
            Err(LoadError::CutShort { .. })
        ));
    }

    #[test]
    fn broken_headers_are_errors() {
        let broken = [
            "{".to_owned(),
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,16]}}"#.to_owned(),
            r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[4,20]}}"#.to_owned(),
            r#"{"a":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,16]}}"#
                .to_owned(),
            r#"{"a":{"dtype":"WHAT","shape":[4],"data_offsets":[0,16]}}"#.to_owned(),
        ];
        for header in broken {
            let error = read_header(&file(&header, 16), "m.safetensors").err();
            assert!(
                matches!(error, Some(LoadError::Header { .. })),
                "{header}: {error:?}"
            );
        }
        let extra = read_header(&file(ONE, 17), "m.safetensors");
        assert!(matches!(extra, Err(LoadError::Header { .. })));
    }

    #[test]
    fn a_header_that_claims_too_much_is_refused_unread() {
        let files = MemoryFiles::new([("m.safetensors", u64::MAX.to_le_bytes().to_vec())]);
        assert!(matches!(
            read_header(&files, "m.safetensors"),
            Err(LoadError::Header { .. })
        ));
    }
}
