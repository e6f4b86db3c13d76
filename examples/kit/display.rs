//! Whether there is a display at all.

/// Returns why no window can be opened; [`None`] where one probably can.
#[cfg(target_os = "linux")]
pub fn complaint() -> Option<String> {
    let name = std::env::var("DISPLAY").unwrap_or_default();
    if name.is_empty() {
        return Some(
            "this scene needs a display, and DISPLAY is not set: try `xvfb-run` before the command"
                .into(),
        );
    }
    (!answers(&name))
        .then(|| format!("this scene needs a display, and nothing answers at DISPLAY={name}"))
}

/// Whether a server answers at `host:number.screen`; without a host it is this machine's.
#[cfg(target_os = "linux")]
fn answers(name: &str) -> bool {
    use std::{
        net::{TcpStream, ToSocketAddrs},
        os::{
            linux::net::SocketAddrExt,
            unix::net::{SocketAddr, UnixStream},
        },
        time::Duration,
    };

    /// For a server on another machine.
    const PATIENCE: Duration = Duration::from_secs(2);

    let Some((host, display)) = name.rsplit_once(':') else {
        return false;
    };
    let Some(Ok(number)) = display.split('.').next().map(str::parse::<u16>) else {
        return false;
    };
    if !host.is_empty() && host != "unix" {
        let port = number.saturating_add(6000);
        let mut addresses = (host, port).to_socket_addrs().into_iter().flatten();
        return addresses.any(|address| TcpStream::connect_timeout(&address, PATIENCE).is_ok());
    }
    let path = format!("/tmp/.X11-unix/X{number}");
    let hidden = SocketAddr::from_abstract_name(&path);
    UnixStream::connect(&path).is_ok()
        || hidden.is_ok_and(|address| UnixStream::connect_addr(&address).is_ok())
}

/// Windows and macOS have one.
#[cfg(not(target_os = "linux"))]
pub fn complaint() -> Option<String> {
    None
}

/// Says why a scene does not begin.
#[expect(clippy::print_stderr, reason = "there is no log yet")]
pub fn complain(reason: &str) {
    eprintln!("error: {reason}");
}
