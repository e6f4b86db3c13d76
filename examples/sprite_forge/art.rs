//! The forge, drawn pixel by pixel: a brick wall, a hearth, an anvil on a stump. Pure.

/// Red, green, blue: 0 to 1.
pub type Rgb = [f32; 3];

const MORTAR: Rgb = [0.075, 0.067, 0.106];
const BRICK: Rgb = [0.165, 0.145, 0.216];
const STONE: Rgb = [0.129, 0.118, 0.173];
const SOOT: Rgb = [0.043, 0.035, 0.059];
const WOOD: Rgb = [0.329, 0.212, 0.161];
const IRON: Rgb = [0.302, 0.302, 0.376];

/// Where the floor begins.
const FLOOR: i32 = 53;
/// The hearth: left, top, width and height.
const HEARTH: [i32; 4] = [3, 30, 14, 23];
/// The middle of the anvil, and its top.
pub const ANVIL: [i32; 2] = [40, 38];

/// The rows of the anvil: from where to where, as seen from its middle, and how bright.
const ANVIL_ROWS: [(i32, i32, f32); 11] = [
    (-15, 17, 1.5),
    (-19, 17, 1.25),
    (-17, 17, 1.0),
    (-13, 16, 0.85),
    (-8, 13, 0.7),
    (-6, 9, 0.75),
    (-6, 9, 0.7),
    (-7, 10, 0.75),
    (-10, 13, 0.95),
    (-12, 15, 0.85),
    (-12, 15, 0.55),
];

/// Returns the colour of a pixel in even light.
pub fn surface(x: i32, y: i32) -> Rgb {
    anvil(x, y)
        .or_else(|| stump(x, y))
        .or_else(|| tools(x, y))
        .or_else(|| hearth(x, y))
        .unwrap_or_else(|| if y >= FLOOR { floor(x, y) } else { wall(x, y) })
}

/// Whether fire may be seen there.
pub fn is_in_hearth(x: i32, y: i32) -> bool {
    let [left, top, width, height] = HEARTH;
    let (x, y) = (x - left, y - top);
    let arch = match y {
        0 => 4,
        1 => 2,
        2 => 1,
        _ => 0,
    };
    (arch..width - arch).contains(&x) && (0..height).contains(&y)
}

/// Whether light falls on iron, which it does not grain.
pub fn is_smooth(x: i32, y: i32) -> bool {
    anvil(x, y).is_some()
}

fn anvil(x: i32, y: i32) -> Option<Rgb> {
    let (x, row) = (x - ANVIL[0], y - ANVIL[1]);
    let (from, to, light) = *ANVIL_ROWS.get(usize::try_from(row).ok()?)?;
    let edge = match x {
        _ if !(from..to).contains(&x) => return None,
        x if x == from => 1.1,
        x if x >= to - 2 => 0.7,
        _ => 1.0,
    };
    Some(scaled(IRON, light * edge))
}

fn stump(x: i32, y: i32) -> Option<Rgb> {
    let (x, row) = (x - ANVIL[0], y - ANVIL[1] - ANVIL_ROWS.len() as i32);
    if !(-14..17).contains(&x) || !(0..8).contains(&row) {
        return None;
    }
    let grain = 1.0 - 0.16 * noise(x, 0) - 0.08 * noise(x, row);
    let band = if row == 2 || row == 6 { 0.62 } else { 1.0 };
    let round = 1.0 - 0.5 * ((x - 1) as f32 / 17.0).powi(2);
    let top = if row == 0 { 1.35 } else { 1.0 };
    Some(scaled(WOOD, grain * band * round * top))
}

/// A hammer and tongs, on nails.
fn tools(x: i32, y: i32) -> Option<Rgb> {
    let head = (61..68).contains(&x) && (14..18).contains(&y);
    let handle = (63..65).contains(&x) && (18..30).contains(&y);
    let (left, right) = (
        x == 55 && (12..28).contains(&y),
        x == 57 && (12..28).contains(&y),
    );
    let grip = (55..58).contains(&x) && (16..18).contains(&y);
    if head {
        return Some(scaled(IRON, if y == 14 { 1.3 } else { 0.85 }));
    }
    if handle {
        return Some(scaled(WOOD, if x == 63 { 1.1 } else { 0.75 }));
    }
    (left || right || grip).then(|| scaled(IRON, if left { 0.9 } else { 0.65 }))
}

fn hearth(x: i32, y: i32) -> Option<Rgb> {
    if is_in_hearth(x, y) {
        return Some(SOOT);
    }
    let near = (-2..=2).any(|dx| is_in_hearth(x + dx, y) || is_in_hearth(x + dx, y + 2));
    let cut = (x + y * 2) % 5 == 0;
    near.then(|| {
        scaled(
            STONE,
            if cut {
                0.8
            } else {
                1.7 - 0.25 * noise(x / 3, y / 3)
            },
        )
    })
}

fn wall(x: i32, y: i32) -> Rgb {
    let row = y / 5;
    let shifted = x + if row % 2 == 0 { 0 } else { 5 };
    if y % 5 == 4 || shifted % 10 == 9 {
        return MORTAR;
    }
    let light = 0.85 + 0.3 * noise(shifted / 10, row);
    let top = if y % 5 == 0 { 1.15 } else { 1.0 };
    scaled(BRICK, light * top)
}

fn floor(x: i32, y: i32) -> Rgb {
    let row = (y - FLOOR) / 3;
    let shifted = x + row * 7;
    let gap = (y - FLOOR) % 3 == 2 || shifted % 14 == 0;
    scaled(
        STONE,
        if gap {
            0.6
        } else {
            1.0 + 0.3 * noise(shifted / 14, row)
        },
    )
}

/// The colour of fire, 0 dark to 1 white-hot.
pub fn fire(heat: f32) -> Rgb {
    match heat {
        ..0.2 => SOOT,
        0.2..0.4 => [0.45, 0.13, 0.12],
        0.4..0.6 => [0.83, 0.29, 0.13],
        0.6..0.8 => [1.0, 0.55, 0.2],
        0.8..0.95 => [1.0, 0.8, 0.4],
        _ => [1.0, 0.96, 0.8],
    }
}

pub fn scaled(color: Rgb, by: f32) -> Rgb {
    color.map(|channel| channel * by)
}

/// A number from 0 to 1 that belongs to a place.
pub fn noise(x: i32, y: i32) -> f32 {
    let mut hash = (x as u32).wrapping_mul(0x9E37_79B1) ^ (y as u32).wrapping_mul(0x85EB_CA77);
    hash = (hash ^ (hash >> 15)).wrapping_mul(0x2C1B_3C6D);
    hash = (hash ^ (hash >> 12)).wrapping_mul(0x297A_2D39);
    ((hash ^ (hash >> 15)) & 0xFFFF) as f32 / 65535.0
}

/// Light falls off in steps, and their borders are dithered.
pub fn dithered(light: f32, x: i32, y: i32) -> f32 {
    const STEPS: f32 = 7.0;
    const PATTERN: [[f32; 2]; 2] = [[0.125, 0.625], [0.875, 0.375]];
    let threshold = PATTERN[(y & 1) as usize][(x & 1) as usize];
    ((light * STEPS) + threshold).floor() / STEPS
}
