//! [`Options`]: a configuration file, key by key, with nothing overlooked.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{LoadError, ModelFiles, source::read_small};

/// The keys of a diffusers configuration that were not looked at yet.
pub(super) struct Options {
    file: String,
    values: Map<String, Value>,
}

impl Options {
    pub(super) fn read(files: &dyn ModelFiles, file: &str) -> Result<Self, LoadError> {
        let text = quote_python_numbers(&read_small(files, file)?);
        let values = serde_json::from_slice(&text).map_err(|error| LoadError::json(file, error))?;
        Ok(Self {
            file: file.into(),
            values,
        })
    }

    /// Takes a key, or its default where it is missing.
    pub(super) fn take<T: DeserializeOwned>(
        &mut self,
        key: &str,
        default: T,
    ) -> Result<T, LoadError> {
        let Some(value) = self.values.remove(key) else {
            return Ok(default);
        };
        serde_json::from_value(value.clone()).map_err(|error| self.unsupported(key, &value, error))
    }

    /// Takes a key that has to be there.
    pub(super) fn require<T: DeserializeOwned>(
        &mut self,
        key: &str,
        expected: &str,
    ) -> Result<T, LoadError> {
        let value = self.values.remove(key).unwrap_or(Value::Null);
        serde_json::from_value(value.clone()).map_err(|_| self.unsupported(key, &value, expected))
    }

    /// Takes a key that may only have one value, or none.
    pub(super) fn only<T>(&mut self, key: &str, supported: T) -> Result<(), LoadError>
    where
        T: Into<Value>,
    {
        let supported = supported.into();
        let value = self.values.remove(key).unwrap_or(Value::Null);
        if value == supported || value.is_null() {
            Ok(())
        } else {
            Err(self.unsupported(key, &value, format!("only {supported} is implemented")))
        }
    }

    /// Takes keys that change nothing when a model is used.
    pub(super) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.values.remove(*key);
        }
    }

    /// Every key has to be known. Those that start with `_` are diffusers' own notes.
    pub(super) fn finish(self) -> Result<(), LoadError> {
        match self.values.iter().find(|(key, _)| !key.starts_with('_')) {
            Some((key, value)) => Err(self.unsupported(key, value, "this key is not known")),
            None => Ok(()),
        }
    }

    pub(super) fn unsupported(
        &self,
        key: &str,
        value: &Value,
        expected: impl ToString,
    ) -> LoadError {
        LoadError::UnsupportedOption {
            file: self.file.clone(),
            key: key.into(),
            value: value.to_string(),
            expected: expected.to_string(),
        }
    }
}

/// Python writes three numbers that JSON does not have. They become texts, so that keys which do not expect them are
/// refused by name.
fn quote_python_numbers(text: &[u8]) -> Vec<u8> {
    const WORDS: [(&[u8], &[u8]); 3] = [
        (b"-Infinity", b"\"-Infinity\""),
        (b"Infinity", b"\"Infinity\""),
        (b"NaN", b"\"NaN\""),
    ];
    let mut quoted = Vec::with_capacity(text.len());
    let (mut at, mut in_text) = (0, false);
    while at < text.len() {
        let rest = &text[at..];
        let word = WORDS.iter().find(|(word, _)| rest.starts_with(word));
        if let (false, Some((word, instead))) = (in_text, word) {
            quoted.extend_from_slice(instead);
            at += word.len();
            continue;
        }
        let length = if in_text && rest[0] == b'\\' { 2 } else { 1 };
        in_text ^= rest[0] == b'"';
        quoted.extend_from_slice(&rest[..length.min(rest.len())]);
        at += length;
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryFiles;

    fn options(json: &str) -> Options {
        let files = MemoryFiles::new([("c.json", json.as_bytes().to_vec())]);
        Options::read(&files, "c.json").expect("an object")
    }

    #[test]
    fn a_key_has_its_value_its_default_or_an_error_that_names_both() {
        let mut options = options(r#"{"a": 3, "b": "x"}"#);
        assert_eq!(options.take("a", 1).expect("a number"), 3);
        assert_eq!(options.take("c", 1).expect("the default"), 1);
        let error = options.take("b", 1).expect_err("a text is no number");
        assert!(
            matches!(&error, LoadError::UnsupportedOption { key, value, .. } if key == "b" && value == "\"x\""),
            "{error}"
        );
    }

    #[test]
    fn what_nobody_looked_at_is_an_error_unless_it_is_a_note() {
        assert!(options(r#"{"_class_name": "A"}"#).finish().is_ok());
        let error = options(r#"{"new_option": [1]}"#)
            .finish()
            .expect_err("unknown");
        assert!(error.to_string().contains("`new_option` is [1]"), "{error}");
    }

    #[test]
    fn numbers_that_json_does_not_have_are_texts() {
        let mut options =
            options(r#"{"a": -Infinity, "b": NaN, "c": "-Infinity \" NaN", "d": Infinity}"#);
        let a: String = options.take("a", String::new()).expect("a text");
        assert_eq!(a, "-Infinity");
        let text: String = options.take("c", String::new()).expect("a text");
        assert_eq!(text, "-Infinity \" NaN");
        for key in ["b", "d"] {
            assert!(options.take(key, 1.0).is_err(), "{key}");
        }
    }

    #[test]
    fn a_single_value_is_accepted_and_others_are_named() {
        assert!(options(r#"{"a": "conv"}"#).only("a", "conv").is_ok());
        assert!(options("{}").only("a", "conv").is_ok());
        assert!(options(r#"{"a": null}"#).only("a", "conv").is_ok());
        assert!(options(r#"{"a": "resnet"}"#).only("a", "conv").is_err());
    }
}
