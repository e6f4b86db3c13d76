//! Starts the build of a game that runs here: the one for CUDA where its libraries and a device are, else the one for the
//! CPU. Copy it into a crate of its own, and ship `game`, `game_cuda` and `game_cpu` side by side. `game` is this
//! program; it passes its arguments on. Here, where no game lies beside it, it says which file it lacks.
//!
//! A program that was built with the feature `cuda` does not start where a library of CUDA is missing, so it cannot decide
//! by itself. It is started once and asked: a game answers before it makes its app. One that does not answer in time, since
//! its card hangs, says no.
//!
//! ```
//! use bevy_candle::prelude::*;
//! use std::process::exit;
//!
//! if std::env::args().any(|argument| argument == "--can-run") {
//!     exit(i32::from(!DeviceChoice::Cuda(0).is_present()));
//! }
//! ```

use std::{
    env::{args_os, consts::EXE_SUFFIX, current_exe},
    io,
    path::Path,
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

/// Opening a card takes seconds at most.
const PATIENCE: Duration = Duration::from_secs(20);

/// How soon it is looked again whether there is an answer.
const LOOK: Duration = Duration::from_millis(10);

fn main() -> io::Result<ExitCode> {
    let own = current_exe()?;
    let folder = own.parent().unwrap_or(Path::new("."));
    let build = |name: &str| folder.join(format!("{name}{EXE_SUFFIX}"));
    let cuda = build("game_cuda");
    let game = if can_run(&cuda) {
        cuda
    } else {
        build("game_cpu")
    };
    let ended = Command::new(&game).args(args_os().skip(1)).status();
    let ended = ended.map_err(|error| {
        let message = format!("failed to start `{}`: {error}", game.display());
        io::Error::new(error.kind(), message)
    })?;
    // A game that a signal has ended has no code.
    let code = ended.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Asks a build. One that lacks a library does not start, and so says no.
fn can_run(game: &Path) -> bool {
    let asked = Command::new(game)
        .arg("--can-run")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let answer = asked.and_then(|game| wait(game, Instant::now() + PATIENCE));
    answer.is_ok_and(|answer| answer.success())
}

/// Waits for the end of a program, or ends it when its time is over.
fn wait(mut program: Child, deadline: Instant) -> io::Result<ExitStatus> {
    loop {
        if let Some(ended) = program.try_wait()? {
            return Ok(ended);
        }
        if Instant::now() >= deadline {
            // Not waited for: a driver that hangs may keep it.
            program.kill()?;
            return Err(io::ErrorKind::TimedOut.into());
        }
        sleep(LOOK);
    }
}
