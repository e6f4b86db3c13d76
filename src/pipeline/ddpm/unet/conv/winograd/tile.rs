//! The transforms of one tile, several channels at once.

use std::ops::{Add, Sub};

use super::{FAR, NEAR, Picture, SEEN, SIDE};

/// Channels that are transformed at once.
pub(super) const LANES: usize = 16;

/// The same number of several channels.
#[derive(Clone, Copy)]
struct Lanes([f32; LANES]);

const ZERO: Lanes = Lanes([0.0; LANES]);

impl Add for Lanes {
    type Output = Self;

    #[inline(always)]
    fn add(mut self, other: Self) -> Self {
        for (lane, other) in self.0.iter_mut().zip(other.0) {
            *lane += other;
        }
        self
    }
}

impl Sub for Lanes {
    type Output = Self;

    #[inline(always)]
    fn sub(mut self, other: Self) -> Self {
        for (lane, other) in self.0.iter_mut().zip(other.0) {
            *lane -= other;
        }
        self
    }
}

impl Lanes {
    #[inline(always)]
    fn times(mut self, by: f32) -> Self {
        for lane in &mut self.0 {
            *lane *= by;
        }
        self
    }

    /// With an own case for the usual length, which is then known.
    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        match <[f32; LANES]>::try_from(from) {
            Ok(lanes) => Self(lanes),
            Err(_) => {
                let mut lanes = ZERO;
                lanes.0[..from.len()].copy_from_slice(from);
                lanes
            }
        }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        match <&mut [f32; LANES]>::try_from(&mut *to) {
            Ok(lanes) => *lanes = self.0,
            Err(_) => to.copy_from_slice(&self.0[..to.len()]),
        }
    }
}

/// Where the same point of the next tile, and the next point of the same tile, are.
#[derive(Clone, Copy)]
pub(super) struct TilePoints {
    pub(super) tile: usize,
    pub(super) tiles: usize,
    pub(super) channels: usize,
}

impl TilePoints {
    /// Where a point's numbers begin, from a channel on.
    #[inline(always)]
    fn point(self, row: usize, column: usize, channel: usize) -> usize {
        ((column * SEEN + row) * self.tiles + self.tile) * self.channels + channel
    }
}

/// Transforms the 6 by 6 pixels around the tile whose first pixel is `at`.
#[inline(always)]
pub(super) fn forth(from: Picture, at: usize, tile: TilePoints, seen: &mut [f32]) {
    for channel in (0..tile.channels).step_by(LANES) {
        let lanes = LANES.min(tile.channels - channel);
        let mut pixels = [[ZERO; SEEN]; SEEN];
        for (row, pixels) in pixels.iter_mut().enumerate() {
            *pixels = six_points(&load_line(from, at, row, (tile.channels, channel, lanes)));
        }
        for column in 0..SEEN {
            let points = six_points(&column_of(&pixels, column));
            for (row, point) in points.into_iter().enumerate() {
                let first = tile.point(row, column, channel);
                point.store(&mut seen[first..first + lanes]);
            }
        }
    }
}

/// One of the six lines around a tile, with zeros beyond the border.
#[inline(always)]
fn load_line(
    from: Picture,
    at: usize,
    row: usize,
    (channels, channel, lanes): (usize, usize, usize),
) -> [Lanes; SEEN] {
    let (line, x) = (at / from.width, at % from.width);
    let y = line % from.height;
    let mut pixels = [ZERO; SEEN];
    if (1..=from.height).contains(&(y + row)) {
        let line = (line + row - 1) * from.width;
        for (column, pixel) in pixels.iter_mut().enumerate() {
            if (1..=from.width).contains(&(x + column)) {
                let first = (line + x + column - 1) * channels + channel;
                *pixel = Lanes::load(&from.numbers[first..first + lanes]);
            }
        }
    }
    pixels
}

/// Makes 4 by 4 pixels of a tile's points, and adds them to those at `at`.
#[inline(always)]
pub(super) fn back(made: &[f32], tile: TilePoints, (at, width): (usize, usize), to: &mut [f32]) {
    for channel in (0..tile.channels).step_by(LANES) {
        let lanes = LANES.min(tile.channels - channel);
        let mut columns = [[ZERO; SIDE]; SEEN];
        for (column, pixels) in columns.iter_mut().enumerate() {
            let mut points = [ZERO; SEEN];
            for (row, point) in points.iter_mut().enumerate() {
                let first = tile.point(row, column, channel);
                *point = Lanes::load(&made[first..first + lanes]);
            }
            *pixels = four_pixels(&points);
        }
        for row in 0..SIDE {
            let line = four_pixels(&column_of(&columns, row));
            for (column, pixel) in line.into_iter().enumerate() {
                let first = (at + row * width + column) * tile.channels + channel;
                let to = &mut to[first..first + lanes];
                (Lanes::load(to) + pixel).store(to);
            }
        }
    }
}

#[inline(always)]
fn column_of<const LINE: usize>(lines: &[[Lanes; LINE]; SEEN], column: usize) -> [Lanes; SEEN] {
    let [a, b, c, d, e, f] = lines;
    [a, b, c, d, e, f].map(|line| line[column])
}

/// Six input pixels in a line become six points.
#[inline(always)]
fn six_points([a, b, c, d, e, f]: &[Lanes; SEEN]) -> [Lanes; SEEN] {
    let (near, near_odd) = (*e - c.times(2.0), (*d - b.times(2.0)).times(NEAR));
    let (far, far_odd) = (*e - c.times(0.5), (*d - b.times(0.5)).times(FAR));
    [
        *a - c.times(2.5) + *e,
        near + near_odd,
        near - near_odd,
        far + far_odd,
        far - far_odd,
        *b - d.times(2.5) + *f,
    ]
}

/// Six points become four output pixels in a line.
#[inline(always)]
fn four_pixels([a, b, c, d, e, f]: &[Lanes; SEEN]) -> [Lanes; SIDE] {
    let (near, near_odd) = (*b + *c, (*b - *c).times(NEAR));
    let (far, far_odd) = (*d + *e, (*d - *e).times(FAR));
    [
        *a + near + far,
        near_odd + far_odd,
        near.times(0.5) + far.times(2.0),
        near_odd.times(0.5) + far_odd.times(2.0) + *f,
    ]
}
