//! Models of what threads do together in `bevy_candle`, for [loom](https://docs.rs/loom), which runs each in every order
//! that the memory model allows.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --manifest-path tests/models/Cargo.toml
//! ```
//!
//! | model | stands for |
//! |---|---|
//! | `cancel_flag` | `Lifeline` and `Watch`: the closing of a channel, asked between chunks |
//! | `overwrite_slot` | `Steps::next` and `Infer`: a slot for the latest preview |
//! | `ticket_count` | `Ticket`: the last holder of a load's memory tells, once, when all of it is gone |
//! | `signal` | `Signal` and `Mailbox`: news that is sent before a frame takes the flag is seen in it or in the next |
//!
//! The first two run the very queue that `async-channel` is made of.
