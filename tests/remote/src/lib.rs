//! Nothing but tests: see `tests/books.rs`.
