//! Whether there is a display at all.

/// Returns why no window can be opened; [`None`] where one probably can.
#[cfg(target_os = "linux")]
pub fn complaint() -> Option<String> {
    use std::{env, path::Path};

    let name = env::var("DISPLAY").unwrap_or_default();
    if name.is_empty() {
        return Some(
            "this scene needs a display, and DISPLAY is not set: try `xvfb-run` before the command"
                .into(),
        );
    }
    let number = name.strip_prefix(':')?.split('.').next()?;
    let socket = format!("/tmp/.X11-unix/X{number}");
    (!Path::new(&socket).exists())
        .then(|| format!("this scene needs a display, and nothing shows at DISPLAY={name}"))
}

/// Windows and macOS have one.
#[cfg(not(target_os = "linux"))]
pub fn complaint() -> Option<String> {
    None
}
