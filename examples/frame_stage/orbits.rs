//! Sprites on orbits. They move with the time, so a frame that is late shows as a jump.

use std::f32::consts::TAU;

use bevy::{camera::ScalingMode, prelude::*};

pub fn plugin(app: &mut App) {
    app.init_resource::<Sheet>()
        .add_systems(Startup, load_sheet)
        .add_systems(Update, (add_sprites, circle, fit_camera));
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
/// The side of a sprite: its pixels stay whole.
const SIDE: f32 = 32.0;
/// The middle of the orbits, between what is written.
const MIDDLE: Vec2 = Vec2::new(4.0, 78.0);
/// The orbits lie in a plane that is seen from the side.
const TILT: f32 = 0.88;

#[derive(Resource, Default)]
struct Sheet(Handle<Image>);

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
    let mut gem = item(&sheet.0, 3);
    gem.custom_size = Some(Vec2::splat(ICON));
    commands.spawn((gem, Transform::from_translation(MIDDLE.extend(0.0))));
    let sprites = ORBITS.iter().enumerate().flat_map(|(ring, count)| {
        let count = *count;
        (0..count).map(move |at| (ring, at, at as f32 / count as f32))
    });
    for (ring, at, part) in sprites {
        let sprite = item(&sheet.0, at * 5 + ring * 3);
        let way = if ring % 2 == 0 { 1.0 } else { -1.0 };
        commands.spawn((
            sprite,
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
        custom_size: Some(Vec2::splat(SIDE)),
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

fn circle(time: Res<Time<Real>>, mut orbits: Query<(&Orbit, &mut Transform)>) {
    for (orbit, mut transform) in &mut orbits {
        let angle = orbit.phase + orbit.speed * time.elapsed_secs();
        let (sin, cos) = angle.sin_cos();
        let place = Vec2::new(cos, sin * TILT) * orbit.radius + MIDDLE;
        // Those in front are drawn over those behind.
        transform.translation = place.round().extend(-place.y / 1000.0);
    }
}

/// As much of the stage in a large window as in a small one.
fn fit_camera(mut cameras: Query<&mut Projection, Added<Camera2d>>) {
    for mut projection in &mut cameras {
        if let Projection::Orthographic(orthographic) = &mut *projection {
            orthographic.scaling_mode = ScalingMode::AutoMin {
                min_width: 1280.0,
                min_height: 720.0,
            };
        }
    }
}
