//! The colours of the scenes: dusk and embers.

use bevy::prelude::*;

pub const GROUND: Color = Color::srgb(0.067, 0.059, 0.098);
pub const PANEL: Color = Color::srgb(0.094, 0.086, 0.133);
pub const EDGE: Color = Color::srgb(0.231, 0.212, 0.32);
pub const TEXT: Color = Color::srgb(0.91, 0.886, 0.827);
pub const DIM: Color = Color::srgb(0.596, 0.569, 0.655);
pub const EMBER: Color = Color::srgb(1.0, 0.55, 0.26);
pub const AMBER: Color = Color::srgb(0.957, 0.776, 0.361);
pub const GREEN: Color = Color::srgb(0.49, 0.827, 0.506);
pub const RED: Color = Color::srgb(0.945, 0.427, 0.376);
