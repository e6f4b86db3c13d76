//! Samples in fresh processes: the bench runs itself again.

#![allow(dead_code, reason = "each bench uses a part")]

use std::{
    env, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// Says that this process is a sample.
const SAMPLE: &str = "--sample";

/// What a sample process is asked for: a name, and the folder to work in.
pub fn asked() -> Option<(String, PathBuf)> {
    let mut arguments = env::args().skip_while(|argument| argument != SAMPLE);
    arguments.next()?;
    Some((arguments.next()?, arguments.next()?.into()))
}

/// Runs a sample in a process of its own, and returns the numbers that it [`answer`]s with.
pub fn sample<const N: usize>(name: &str, folder: &Path) -> io::Result<[f64; N]> {
    let output = Command::new(env::current_exe()?)
        .args([SAMPLE, name])
        .arg(folder)
        .stderr(Stdio::inherit())
        .output()?;
    let answer = String::from_utf8_lossy(&output.stdout);
    let line = answer.lines().find_map(|line| line.strip_prefix("answer "));
    let numbers: Vec<f64> = line
        .unwrap_or_default()
        .split(' ')
        .filter_map(|number| number.parse().ok())
        .collect();
    numbers.try_into().map_err(|_| {
        let status = output.status;
        io::Error::other(format!(
            "the sample `{name}` ended with {status} and said: {answer}"
        ))
    })
}

/// A process beside this one, until it is dropped.
pub struct Beside(Child);

impl Beside {
    /// Starts it: what it does is [`asked`] for by name.
    pub fn start(name: &str, folder: &Path) -> io::Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        let child = command.args([SAMPLE, name]).arg(folder).spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a sample has measured.
pub fn answer(numbers: &[f64]) {
    let numbers: Vec<_> = numbers.iter().map(f64::to_string).collect();
    println!("answer {}", numbers.join(" "));
}
