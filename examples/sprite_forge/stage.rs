//! The stage: the forge, what forms on the anvil, and sparks, all on one grid of pixels.

use bevy::prelude::*;

use crate::{
    art::{ANVIL, Rgb, dithered, fire, is_in_hearth, is_smooth, noise, scaled, surface},
    kit::{canvas::canvas, palette::PANEL},
};

pub fn plugin(app: &mut App) {
    app.init_resource::<Stage>()
        .add_systems(Update, (step, draw).chain());
}

/// The stage in its own pixels, and how large each is on the screen.
const SIZE: UVec2 = UVec2::new(72, 62);
const PIXEL: f32 = 8.0;
/// The side of a sprite.
const SPRITE: i32 = 32;
/// Seconds from full heat to none.
const COOLING: f32 = 1.6;
const GRAVITY: f32 = 60.0;

/// What happens on the anvil.
#[derive(Resource, Default)]
pub struct Stage {
    /// The job that is on the anvil, and what it looks like.
    job: Option<Entity>,
    sprite: Option<Image>,
    /// 0 gone to 1 there.
    shown: f32,
    /// 0 to 1.
    pub done: f32,
    heat: f32,
    sparks: Vec<Spark>,
    time: f32,
    drawn: u32,
}

struct Spark {
    at: Vec2,
    speed: Vec2,
    life: f32,
}

/// The node that shows the stage.
#[derive(Component)]
pub struct StageNode;

impl Stage {
    /// A step is done: the sprite looks like this now.
    pub fn strike(&mut self, job: Entity, step: u32, steps: u32, sprite: Image) {
        self.job = Some(job);
        self.sprite = Some(sprite);
        self.shown = 1.0;
        self.done = step as f32 / steps.max(1) as f32;
        self.heat = (self.heat + 0.12).min(1.0);
        self.throw_sparks(3);
    }

    /// The sprite is taken off the anvil.
    pub fn take(&mut self) {
        self.job = None;
        self.sprite = None;
        self.shown = 0.0;
        self.done = 0.0;
        self.heat = 1.0;
        self.throw_sparks(26);
    }

    fn throw_sparks(&mut self, count: i32) {
        for _ in 0..count {
            self.drawn += 1;
            let (seed, spread) = (self.drawn as i32, noise(self.drawn as i32, 1) - 0.5);
            self.sparks.push(Spark {
                at: Vec2::new(ANVIL[0] as f32 + spread * 20.0, ANVIL[1] as f32 - 1.0),
                speed: Vec2::new(spread * 46.0, -14.0 - 26.0 * noise(seed, 2)),
                life: 0.4 + 0.5 * noise(seed, 3),
            });
        }
    }
}

pub fn frame(images: &mut Assets<Image>) -> impl Bundle + use<> {
    let node = Node {
        width: px(SIZE.x as f32 * PIXEL),
        height: px(SIZE.y as f32 * PIXEL),
        align_self: AlignSelf::Center,
        flex_shrink: 0.0,
        ..default()
    };
    let ground = BackgroundColor(PANEL);
    (node, ground, canvas(SIZE, images), StageNode)
}

fn step(mut stage: ResMut<Stage>, time: Res<Time<Real>>, jobs: Query<()>) {
    let seconds = time.delta_secs().min(0.1);
    let stage = &mut *stage;
    stage.time += seconds;
    stage.heat = (stage.heat - seconds / COOLING).max(0.0);
    // A job that was taken away leaves smoke.
    if stage.job.is_some_and(|job| !jobs.contains(job)) {
        stage.shown -= seconds * 3.0;
        if stage.shown <= 0.0 {
            (stage.job, stage.sprite, stage.done) = (None, None, 0.0);
        }
    }
    for spark in &mut stage.sparks {
        spark.speed.y += GRAVITY * seconds;
        spark.at += spark.speed * seconds;
        spark.life -= seconds;
    }
    let floor = SIZE.y as f32;
    stage
        .sparks
        .retain(|spark| spark.life > 0.0 && spark.at.y < floor);
}

fn draw(
    stage: Res<Stage>,
    node: Query<&ImageNode, With<StageNode>>,
    mut images: ResMut<Assets<Image>>,
) {
    let Ok(node) = node.single() else { return };
    let Some(mut image) = images.get_mut(&node.image) else {
        return;
    };
    let Some(data) = image.data.as_mut() else {
        return;
    };
    for y in 0..SIZE.y as i32 {
        for x in 0..SIZE.x as i32 {
            put(data, x, y, lit(&stage, x, y));
        }
    }
    draw_sprite(&stage, data);
    draw_done(&stage, data);
    for spark in &stage.sparks {
        let at = spark.at.as_ivec2();
        put(data, at.x, at.y, fire(0.45 + spark.life));
    }
}

/// The forge by the light of its fire and of what is on the anvil.
fn lit(stage: &Stage, x: i32, y: i32) -> Rgb {
    if is_in_hearth(x, y) {
        return flame(stage, x, y);
    }
    let far = |to: Vec2, reach: f32| {
        let distance = Vec2::new(x as f32, y as f32).distance(to) / reach;
        (1.0 - distance).max(0.0).powi(2)
    };
    let flicker = 0.85 + 0.15 * noise((stage.time * 9.0) as i32, 7);
    let hearth = far(Vec2::new(10.0, 44.0), 46.0) * (0.9 + 0.6 * stage.heat) * flicker;
    let anvil = far(Vec2::new(ANVIL[0] as f32, 28.0), 44.0) * (0.45 + 1.1 * stage.heat);
    let light = hearth + anvil;
    let warm = if is_smooth(x, y) {
        light
    } else {
        dithered(light, x, y)
    };
    let [red, green, blue] = surface(x, y);
    [
        red * (0.75 + 2.3 * warm),
        green * (0.75 + 1.35 * warm),
        blue * (0.85 + 0.55 * warm),
    ]
}

fn flame(stage: &Stage, x: i32, y: i32) -> Rgb {
    let rise = (stage.time * 12.0) as i32;
    let height = (y - 30) as f32 / 23.0;
    let side = ((x - 10) as f32 / 7.0).abs();
    let wild = noise(x / 2, (y + rise) / 3) * 0.55 + noise(x, y / 2 + rise) * 0.2;
    fire(height * 1.15 - side * 0.45 + wild - 0.4 + 0.3 * stage.heat)
}

/// The sprite hovers over the anvil.
fn draw_sprite(stage: &Stage, data: &mut [u8]) {
    let sprite = stage
        .sprite
        .as_ref()
        .and_then(|image| Some((image.size(), image.data.as_ref()?)));
    let Some((size, pixels)) = sprite else { return };
    let hover = (stage.time * 2.5).sin().round() as i32;
    let corner = IVec2::new(ANVIL[0] - SPRITE / 2 + 1, ANVIL[1] - SPRITE - 2 + hover);
    for (at, pixel) in pixels.chunks_exact(4).enumerate() {
        let place = corner + IVec2::new(at as i32 % size.x as i32, at as i32 / size.x as i32);
        let opacity = f32::from(pixel[3]) / 255.0 * stage.shown;
        let under = get(data, place.x, place.y);
        let mixed = [0, 1, 2].map(|channel| {
            let over = f32::from(pixel[channel]) / 255.0;
            under[channel] + (over - under[channel]) * opacity
        });
        put(data, place.x, place.y, mixed);
    }
}

/// The steps, as a glowing seam in the stump.
fn draw_done(stage: &Stage, data: &mut [u8]) {
    const WIDTH: i32 = 24;
    let left = ANVIL[0] + 1 - WIDTH / 2;
    let done = (stage.done * WIDTH as f32).round() as i32;
    for x in 0..WIDTH {
        let color = if x < done {
            fire(0.7)
        } else {
            [0.14, 0.09, 0.08]
        };
        put(data, left + x, ANVIL[1] + 14, color);
        put(data, left + x, ANVIL[1] + 15, scaled(color, 0.8));
    }
}

/// The place of a pixel in the data; [`None`] beside the stage.
fn place(x: i32, y: i32) -> Option<usize> {
    let (x, y) = (u32::try_from(x).ok()?, u32::try_from(y).ok()?);
    (x < SIZE.x && y < SIZE.y).then_some(((y * SIZE.x + x) * 4) as usize)
}

fn get(data: &[u8], x: i32, y: i32) -> Rgb {
    let at = place(x, y);
    at.map_or([0.0; 3], |at| {
        [0, 1, 2].map(|channel| f32::from(data[at + channel]) / 255.0)
    })
}

fn put(data: &mut [u8], x: i32, y: i32, color: Rgb) {
    if let Some(at) = place(x, y) {
        for (byte, channel) in data[at..].iter_mut().zip(color) {
            *byte = (channel.clamp(0.0, 1.0) * 255.0) as u8;
        }
    }
}
