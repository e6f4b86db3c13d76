//! A test's child process: what it says, and an end to its time.

use std::{
    io::{self, BufRead, BufReader, Read},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use libtest_mimic::Failed;

/// Runs a child to its end, and returns that and all lines that it said; `hear` gets each at once. One that does not end
/// in time is killed.
pub fn run_child(
    command: &mut Command,
    patience: Duration,
    mut hear: impl FnMut(&Child, &str) -> io::Result<()>,
) -> Result<(ExitStatus, String), Failed> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (tell, lines) = mpsc::channel();
    listen(child.stdout.take().expect("it is piped"), tell.clone());
    listen(child.stderr.take().expect("it is piped"), tell);
    let deadline = Instant::now() + patience;
    let mut said = String::new();
    // The channel ends with the child's last output.
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                hear(&child, &line)?;
                said += &(line + "\n");
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                child.kill()?;
                return Err(format!("no end within {patience:?}; it said:\n{said}").into());
            }
        }
    }
    Ok((child.wait()?, said))
}

fn listen(output: impl Read + Send + 'static, tell: mpsc::Sender<String>) {
    let lines = BufReader::new(output).lines().map_while(Result::ok);
    std::thread::spawn(move || lines.for_each(|line| _ = tell.send(line)));
}
