//! How long 1 GiB of safetensors takes to load, next to what others do.
//!
//! ```text
//! cargo bench --bench load
//! ```
//!
//! Every sample is a fresh process, the sides take turns, and medians count. The sides:
//!
//! - `ours`: a `ModelManager` in an app that no display paces, thousands of frames a second, from the request to Loaded.
//!   `load_spinning_s` is the same in an app that takes no rest between two frames, and so keeps a core to itself.
//! - `candle`: `VarBuilder::from_mmaped_safetensors`, getting every tensor.
//! - `assets`: a Bevy `AssetLoader` that reads the whole file and parses the buffer, in the same kind of app.
//! - `read`: the file in large sequential reads into one small buffer, and nothing else.
//!
//! `load_*_ratio` is the time of `ours` to that of the other side: `warm` to `candle` (many layers, f32), `large` to
//! `candle` (few large tensors), `bf16` to `candle` (cast to f32), `assetloader` to `assets`, `cold` to `read` (the file is
//! not cached). `load_peak_ratio` is the most memory that the process takes on for the load, over the bytes claimed.
//! With the feature `cuda` and a device, `load_card_*` is the same onto the device: `ratio` to candle's own load there,
//! `bandwidth` the part of what is possible, which is the slower of `reads`, the file into pinned memory, and `copy`,
//! as many bytes from there to the device.
//! `load_progress_cost` is the part of a load that goes into counting, looking for cancels and showing progress.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod support {
    #[cfg(feature = "cuda")]
    pub mod card;
    pub mod child;
    pub mod figures;
    pub mod machine;
    pub mod main_thread;
    pub mod settings;
    pub mod sides;
    pub mod stack;
    #[cfg(unix)]
    pub mod timed;
    pub mod weights;
}

use std::{io, process::ExitCode, time::Duration};

#[cfg(feature = "cuda")]
use bevy_candle::DeviceChoice;
#[cfg(unix)]
use support::timed::progress_cost;
#[cfg(feature = "cuda")]
use support::{card, sides::load_on};
use support::{
    child::{answer, asked, sample},
    figures::{Figures, median, worst},
    machine::{forget_file, huge_pages, read_into_cache, touch_memory},
    sides::{REST, load_asset, load_with_candle, load_with_manager, read_through},
    weights::{Folder, Set},
};

/// Samples of each side.
const SAMPLES: usize = 7;

fn main() -> io::Result<ExitCode> {
    if let Some((side, folder)) = asked() {
        #[cfg(feature = "cuda")]
        match side.as_str() {
            "card_candle" => return said(card::load_with_candle(&folder)),
            "card_reads" => return said(card::read_into_pinned(&folder)),
            "card_copy" => return said(card::copy_from_pinned(&folder)),
            _ => {}
        }
        answer(&match side.as_str() {
            "ours" => load_with_manager(&folder, REST),
            "spinning" => load_with_manager(&folder, Duration::ZERO),
            "candle" => load_with_candle(&folder),
            "assets" => load_asset(&folder),
            "read" => read_through(&folder),
            #[cfg(unix)]
            "progress" => progress_cost(&folder),
            #[cfg(feature = "cuda")]
            "card_ours" => load_on(DeviceChoice::Cuda(0), &folder, REST),
            other => return Err(io::Error::other(format!("there is no side `{other}`"))),
        });
        return Ok(ExitCode::SUCCESS);
    }
    println!("huge_pages {}", huge_pages());
    let mut figures = Figures::default();
    let mut peaks = Vec::new();
    for set in Set::ALL {
        let folder = Folder::make(set)?;
        warm(&mut figures, &mut peaks, set, &folder)?;
        if set == Set::Many {
            cold(&mut figures, &folder)?;
        }
        if set == Set::Large {
            progress(&mut figures, &folder)?;
        }
        #[cfg(feature = "cuda")]
        onto_card(&mut figures, set, &folder)?;
    }
    figures.at_most("load_peak_ratio", worst(&peaks), 1.05);
    Ok(figures.finish())
}

#[cfg(feature = "cuda")]
fn said(seconds: [f64; 1]) -> io::Result<ExitCode> {
    answer(&seconds);
    Ok(ExitCode::SUCCESS)
}

/// The file is in the system's cache, and the weights go to a card.
#[cfg(feature = "cuda")]
fn onto_card(figures: &mut Figures, set: Set, folder: &Folder) -> io::Result<()> {
    let name = match set {
        Set::Many => "many",
        Set::Large => "large",
        Set::Bf16 => return Ok(()),
    };
    let names = ["ratio", "bandwidth"].map(|figure| format!("load_card_{name}_{figure}"));
    if !card::is_there() {
        for name in names {
            figures.not_measured(&name, "no CUDA device");
        }
        return Ok(());
    }
    let sides = ["card_ours", "card_candle", "card_reads", "card_copy"];
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..SAMPLES {
        for (side, times) in sides.into_iter().zip(&mut times) {
            read_into_cache(&folder.weights())?;
            times.push(if side == "card_ours" {
                sample_of(side, folder)?[0]
            } else {
                sample::<1>(side, folder.path())?[0]
            });
        }
    }
    let [ours, candle, reads, copy] = times.map(|times| median(&times));
    for (side, seconds) in sides.into_iter().zip([ours, candle, reads, copy]) {
        figures.print(&format!("load_{side}_{name}_s"), seconds);
    }
    figures.at_most(&names[0], ours / candle, 0.5);
    figures.at_least(&names[1], reads.max(copy) / ours, 0.8);
    Ok(())
}

/// The file is in the system's cache.
fn warm(figures: &mut Figures, peaks: &mut Vec<f64>, set: Set, folder: &Folder) -> io::Result<()> {
    let warm = |side: &str| {
        read_into_cache(&folder.weights())?;
        touch_memory(folder.bytes);
        sample_of(side, folder)
    };
    let (mut ours, mut peak) = (Vec::new(), Vec::new());
    let (mut candle, mut assets, mut spinning) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let [seconds, most] = warm("ours")?;
        ours.push(seconds);
        peak.push(most / folder.bytes as f64);
        candle.push(warm("candle")?[0]);
        if set == Set::Many {
            assets.push(warm("assets")?[0]);
            spinning.push(warm("spinning")?[0]);
        }
    }
    peaks.push(median(&peak));
    let (name, bar) = match set {
        Set::Many if huge_pages() == "never" => ("warm", 0.5),
        Set::Many => ("warm", 0.25),
        Set::Large => ("large", 0.25),
        Set::Bf16 => ("bf16", 0.5),
    };
    figures.print(&format!("load_{name}_s"), median(&ours));
    figures.print(&format!("load_{name}_candle_s"), median(&candle));
    figures.print(&format!("load_{name}_peak_ratio"), median(&peak));
    let ratio = median(&ours) / median(&candle);
    figures.at_most(&format!("load_{name}_ratio"), ratio, bar);
    if set == Set::Many {
        figures.print("load_assetloader_s", median(&assets));
        figures.print("load_spinning_s", median(&spinning));
        let ratio = median(&ours) / median(&assets);
        figures.at_most("load_assetloader_ratio", ratio, 0.25);
    }
    Ok(())
}

/// The seconds of a side, and the memory that it took on, where it says so.
fn sample_of(side: &str, folder: &Folder) -> io::Result<[f64; 2]> {
    sample(side, folder.path())
}

/// The system has forgotten the file.
fn cold(figures: &mut Figures, folder: &Folder) -> io::Result<()> {
    let (mut ours, mut read) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        for (side, times) in [("read", &mut read), ("ours", &mut ours)] {
            if !forget_file(&folder.weights())? {
                figures.not_measured("load_cold_ratio", "the system keeps the file in its cache");
                return Ok(());
            }
            touch_memory(folder.bytes);
            times.push(sample_of(side, folder)?[0]);
        }
    }
    figures.print("load_cold_s", median(&ours));
    figures.print("load_cold_read_s", median(&read));
    figures.at_most("load_cold_ratio", median(&ours) / median(&read), 1.1);
    Ok(())
}

fn progress(figures: &mut Figures, folder: &Folder) -> io::Result<()> {
    if !cfg!(unix) {
        figures.not_measured("load_progress_cost", "its clock is of Unix");
        return Ok(());
    }
    let costs: io::Result<Vec<_>> = (0..SAMPLES)
        .map(|_| Ok(sample_of("progress", folder)?[0]))
        .collect();
    figures.at_most("load_progress_cost", median(&costs?), 0.01);
    Ok(())
}
