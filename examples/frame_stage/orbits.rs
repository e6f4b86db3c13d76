//! Sprites on orbits. They move with the time, so a frame that is late shows as a jump.

use std::f32::consts::TAU;

use bevy::{camera::ScalingMode, prelude::*, window::PrimaryWindow};

use crate::kit::canvas::part_of_room;

pub fn plugin(app: &mut App) {
    app.init_resource::<Sheet>()
        .add_systems(Startup, load_sheet)
        .add_systems(Update, (add_sprites, circle, fit_sprites, fit_camera));
}

/// The picture of the README: 8 by 4 items, three times as large as they are, on one colour.
const SHEET: &str = "docs/sprites.png";
const COLUMNS: usize = 8;
const ROWS: usize = 4;
const CELL: f32 = 102.0;
const ICON: f32 = 96.0;

/// Sprites on each orbit, from the inside.
const ORBITS: [usize; 6] = [16, 23, 30, 37, 44, 51];
const FIRST_RADIUS: f32 = 92.0;
const BETWEEN: f32 = 38.0;
/// The side of a sprite, at most: its pixels stay whole.
const SIDE: f32 = 32.0;
/// The side of an item in its own pixels.
const PIXELS: f32 = 32.0;
/// What the camera shows at least.
const STAGE: Vec2 = Vec2::new(1280.0, 720.0);
/// The middle of the orbits, between what is written.
const MIDDLE: Vec2 = Vec2::new(4.0, 78.0);
/// The orbits lie in a plane that is seen from the side.
const TILT: f32 = 0.88;

#[derive(Resource, Default)]
struct Sheet(Handle<Image>);

/// The largest side of a sprite.
#[derive(Component)]
struct Side(f32);

#[derive(Component)]
struct Orbit {
    radius: f32,
    phase: f32,
    speed: f32,
}

fn load_sheet(mut sheet: ResMut<Sheet>, assets: Res<AssetServer>) {
    sheet.0 = assets.load(SHEET);
}

/// Once the picture is there: takes its ground away, and cuts it up.
fn add_sprites(
    mut commands: Commands,
    sheet: Res<Sheet>,
    mut images: ResMut<Assets<Image>>,
    orbits: Query<(), With<Orbit>>,
) {
    let is_there = orbits.is_empty() && images.contains(&sheet.0);
    let Some(mut image) = is_there.then(|| images.get_mut(&sheet.0)).flatten() else {
        return;
    };
    clear_ground(image.data.as_mut());
    let gem = item(&sheet.0, 3);
    commands.spawn((
        gem,
        Side(ICON),
        Transform::from_translation(MIDDLE.extend(0.0)),
    ));
    let sprites = ORBITS.iter().enumerate().flat_map(|(ring, count)| {
        let count = *count;
        (0..count).map(move |at| (ring, at, at as f32 / count as f32))
    });
    for (ring, at, part) in sprites {
        let sprite = item(&sheet.0, at * 5 + ring * 3);
        let way = if ring % 2 == 0 { 1.0 } else { -1.0 };
        commands.spawn((
            sprite,
            Side(SIDE),
            Orbit {
                radius: FIRST_RADIUS + ring as f32 * BETWEEN,
                phase: part * TAU,
                speed: way * 0.55 / (1.0 + ring as f32 * 0.25),
            },
        ));
    }
}

/// Returns an item of the sheet.
fn item(sheet: &Handle<Image>, at: usize) -> Sprite {
    let cell = Vec2::new((at % COLUMNS) as f32, (at / COLUMNS % ROWS) as f32);
    let corner = cell * CELL + 3.0;
    Sprite {
        image: sheet.clone(),
        rect: Some(Rect::from_corners(corner, corner + ICON)),
        ..default()
    }
}

/// Makes the colour of the first pixel transparent, and what is close to it.
fn clear_ground(data: Option<&mut Vec<u8>>) {
    let Some(data) = data else { return };
    let Some(ground) = data.first_chunk::<4>().copied() else {
        return;
    };
    for pixel in data.chunks_exact_mut(4) {
        let is_close = |(a, b): (&u8, &u8)| a.abs_diff(*b) < 20;
        if pixel.iter().zip(&ground).all(is_close) {
            pixel.fill(0);
        }
    }
}

fn circle(
    time: Res<Time<Real>>,
    mut orbits: Query<(&Orbit, &mut Transform)>,
    windows: Query<&Window, With<PrimaryWindow>>,
) {
    let Ok(window) = windows.single() else { return };
    let (scale, middle) = (scale(window), window.physical_size().as_vec2() / 2.0);
    for (orbit, mut transform) in &mut orbits {
        let angle = orbit.phase + orbit.speed * time.elapsed_secs();
        let (sin, cos) = angle.sin_cos();
        let place = Vec2::new(cos, sin * TILT) * orbit.radius + MIDDLE;
        // Those in front are drawn over those behind.
        let on_a_pixel = ((place * scale + middle).round() - middle) / scale;
        transform.translation = on_a_pixel.extend(-place.y / 1000.0);
    }
}

/// The pixels of the window that a unit of the stage takes.
fn scale(window: &Window) -> f32 {
    let fits = (window.physical_size().as_vec2() / STAGE).min_element();
    // A window that is put away has no pixels.
    fits.max(0.1)
}

fn fit_sprites(
    mut sprites: Query<(&Side, &mut Sprite)>,
    windows: Query<&Window, With<PrimaryWindow>>,
) {
    let Ok(window) = windows.single() else { return };
    for (side, mut sprite) in &mut sprites {
        let side = side.0 * part_of_room(PIXELS, side.0 * scale(window));
        let size = Some(Vec2::splat(side));
        if sprite.custom_size != size {
            sprite.custom_size = size;
        }
    }
}

/// As much of the stage in a large window as in a small one.
fn fit_camera(mut cameras: Query<&mut Projection, Added<Camera2d>>) {
    for mut projection in &mut cameras {
        if let Projection::Orthographic(orthographic) = &mut *projection {
            orthographic.scaling_mode = ScalingMode::AutoMin {
                min_width: STAGE.x,
                min_height: STAGE.y,
            };
        }
    }
}
