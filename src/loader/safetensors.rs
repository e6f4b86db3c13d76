//! Headers of safetensors files: names, shapes, formats and offsets, without one byte of weights.

use candle_core::DType;
use safetensors::tensor::{Dtype, Metadata};

use crate::{LoadError, ModelFiles};

mod entries;
use entries::Entries;

/// The longest header that is read, in bytes. The format allows six times as much, which no model needs: headers
/// take memory before anything is claimed.
const MAX_HEADER: u64 = 16 << 20;

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
    let tensors = parse(&header_bytes(files, file, length)?)
        .map_err(|reason| LoadError::header(file, reason))?;
    let expected = data_start
        .checked_add(tensors.data_len() as u64)
        .ok_or_else(|| LoadError::header(file, "its tensors have more bytes than a file can"))?;
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

fn header_bytes(files: &dyn ModelFiles, file: &str, length: u64) -> Result<Vec<u8>, LoadError> {
    let mut header = vec![0; length as usize];
    files.read_at(file, PREFIX, &mut header)?;
    Ok(header)
}

/// Reads a header: names that are there once, shapes that fit their bytes, bytes without gaps or overlaps.
fn parse(header: &[u8]) -> Result<Metadata, String> {
    let entries: Entries = serde_json::from_slice(header).map_err(|error| error.to_string())?;
    Metadata::new(None, entries.0).map_err(|error| error.to_string())
}

fn header_length(files: &dyn ModelFiles, file: &str) -> Result<u64, LoadError> {
    let mut prefix = [0; PREFIX as usize];
    files.read_at(file, 0, &mut prefix)?;
    let length = u64::from_le_bytes(prefix);
    if length <= MAX_HEADER {
        return Ok(length);
    }
    let reason = if is_pickle(&prefix) {
        "it is a PyTorch pickle, which runs code when it is read; convert it to safetensors".into()
    } else {
        format!("its header claims {length} bytes, {MAX_HEADER} are allowed")
    };
    Err(LoadError::header(file, reason))
}

/// How pickles begin: the zip archives of `PyTorch`, and bare ones.
fn is_pickle(prefix: &[u8]) -> bool {
    prefix.starts_with(b"PK\x03\x04") || matches!(prefix, [0x80, 2..=5, ..])
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

    /// The reason why a header is refused, before 16 bytes of weights.
    #[track_caller]
    fn refused(header: &str) -> String {
        match read_header(&file(header, 16), "m.safetensors").err() {
            Some(LoadError::Header { reason, .. }) => reason,
            other => panic!("{header}: {other:?}"),
        }
    }

    fn tensor(name: &str, shape: &str, start: usize, end: usize) -> String {
        format!(r#""{name}":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{start},{end}]}}"#)
    }

    #[test]
    fn broken_headers_are_errors() {
        let broken = [
            "",
            "{",
            "[]",
            "{}",
            "{} {}",
            r#"{"a":{"dtype":"WHAT","shape":[4],"data_offsets":[0,16]}}"#,
            r#"{"a":{"dtype":"F32","shape":[4]}}"#,
            r#"{"a":{"dtype":"F32","shape":[-4],"data_offsets":[0,16]}}"#,
            r#"{"a":{"dtype":"F32","shape":[4.0],"data_offsets":[0,16]}}"#,
            r#"{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}"#,
            r#"{"a":{"dtype":"F32","shape":[4],"shape":[4],"data_offsets":[0,16]}}"#,
        ];
        for header in broken {
            refused(header);
        }
        refused(&"[".repeat(100_000));
        refused(&format!("{{\"a\":{}", "[".repeat(100_000)));
    }

    #[test]
    fn shapes_that_do_not_fit_their_bytes_or_overflow_are_refused() {
        let huge = usize::MAX;
        for shape in [
            "2",
            "5",
            &format!("{huge},2"),
            &format!("{huge},{huge}"),
            "0",
        ] {
            refused(&format!("{{{}}}", tensor("a", shape, 0, 16)));
        }
        let many = vec!["1"; entries::MAX_RANK + 1].join(",");
        refused(&format!("{{{}}}", tensor("a", &many, 0, 4)));
    }

    #[test]
    fn bytes_with_gaps_overlaps_or_ends_beyond_their_starts_are_refused() {
        let pairs = [
            (tensor("a", "4", 4, 20), tensor("b", "0", 20, 20)),
            (tensor("a", "2", 0, 8), tensor("b", "2", 4, 12)),
            (tensor("a", "2", 0, 8), tensor("b", "1", 12, 16)),
            (tensor("a", "4", 0, 16), tensor("b", "4", 0, 16)),
            (tensor("a", "2", 8, 0), tensor("b", "4", 0, 16)),
        ];
        for (a, b) in pairs {
            refused(&format!("{{{a},{b}}}"));
        }
    }

    #[test]
    fn more_bytes_than_a_file_can_have_do_not_wrap_around() {
        let size = (1 << 61) - 1;
        let bytes = |i: usize| {
            let (start, end) = (i * size, (i + 1) * size);
            format!(r#""{i}":{{"dtype":"U8","shape":[{size}],"data_offsets":[{start},{end}]}}"#)
        };
        let last = 8 * size;
        let rest = usize::MAX - last;
        let last = format!(
            r#""8":{{"dtype":"U8","shape":[{rest}],"data_offsets":[{last},{}]}}"#,
            usize::MAX
        );
        let all: Vec<_> = (0..8).map(bytes).chain([last]).collect();
        let reason = refused(&format!("{{{}}}", all.join(",")));
        assert!(reason.contains("more bytes than a file can"), "{reason}");
    }

    #[test]
    fn a_name_that_is_listed_twice_or_is_too_long_is_refused() {
        let (a, b) = (tensor("a", "2", 0, 8), tensor("a", "2", 8, 16));
        assert!(refused(&format!("{{{a},{b}}}")).contains("`a` is listed twice"));
        let long = "n".repeat(entries::MAX_NAME + 1);
        let reason = refused(&format!("{{{}}}", tensor(&long, "4", 0, 16)));
        assert!(reason.contains("1025 bytes, 1024 are allowed"), "{reason}");
    }

    #[test]
    fn more_tensors_than_a_model_has_are_refused() {
        let tensors = (0..=entries::MAX_TENSORS).map(|i| tensor(&i.to_string(), "0", 0, 0));
        let reason = refused(&format!("{{{}}}", tensors.collect::<Vec<_>>().join(",")));
        assert!(reason.contains("more than 100000 tensors"), "{reason}");
    }

    #[test]
    fn what_a_file_says_about_itself_is_passed_over() {
        let metadata = r#""__metadata__":{"format":"pt","more":["of",{"it":null}]}"#;
        let header = format!("{{{metadata},{}}}", tensor("a", "2,2", 0, 16));
        let header = read_header(&file(&header, 16), "m.safetensors").expect("a header");
        assert!(header.tensors.info("a").is_some());
    }

    #[test]
    fn pickles_are_refused_by_their_name() {
        for pickle in [
            b"PK\x03\x04\x00\x00\x08\x08rest",
            b"\x80\x02}q\x00X\x05\x00rest",
        ] {
            let files = MemoryFiles::new([("m.safetensors", pickle.to_vec())]);
            let error = read_header(&files, "m.safetensors").err();
            assert!(
                error.is_some_and(|error| error.to_string().contains("PyTorch pickle")),
                "{pickle:?}"
            );
        }
    }

    #[test]
    fn bytes_after_the_last_tensor_are_refused() {
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
