//! A line over time, drawn pixel by pixel.

use std::collections::VecDeque;

use bevy::prelude::*;

use super::{
    canvas::canvas,
    palette::{DIM, EDGE, PANEL, RED, TEXT},
};

/// How large a plot's pixels are on the screen.
const PIXEL: f32 = 2.0;

/// How many times the mark is far above it.
const FAR: f32 = 6.0;

/// The last values of something, one a column.
#[derive(Component)]
pub struct Plot {
    values: VecDeque<f32>,
    size: UVec2,
    color: Color,
    top: f32,
    /// Whether the top rises with the values; else they are cut off there.
    pub grows: bool,
    /// Where a line across is drawn; what is far above it is red.
    pub mark: Option<f32>,
}

impl Plot {
    /// Makes a plot so many columns wide and rows high.
    pub fn new(size: UVec2, color: Color, top: f32) -> Self {
        Self {
            values: VecDeque::new(),
            size,
            color,
            top,
            grows: false,
            mark: None,
        }
    }

    /// Adds a column on the right.
    pub fn push(&mut self, value: f32) {
        self.values.push_back(value);
        if self.values.len() > self.size.x as usize {
            self.values.pop_front();
        }
    }

    /// Returns the largest value that shows.
    pub fn highest(&self) -> f32 {
        self.values.iter().copied().fold(0.0, f32::max)
    }

    /// The row of a value, from the top.
    fn row(&self, value: f32) -> u32 {
        let highest = if self.grows {
            self.highest() * 1.1
        } else {
            0.0
        };
        let part = (value / self.top.max(highest)).clamp(0.0, 1.0);
        let rows = self.size.y - 1;
        rows - (part * rows as f32).round() as u32
    }

    fn draw(&self, image: &mut Image) {
        let mut put = |x: u32, y: u32, color: Color| _ = image.set_color_at(x, y, color);
        for (x, y) in (0..self.size.x).flat_map(|x| (0..self.size.y).map(move |y| (x, y))) {
            put(x, y, PANEL);
        }
        let first = self.size.x as usize - self.values.len();
        let mut last = None;
        for (at, value) in self.values.iter().enumerate() {
            let (x, row) = ((first + at) as u32, self.row(*value));
            let is_far = self.mark.is_some_and(|mark| *value > FAR * mark);
            let color = if is_far { RED } else { self.color };
            for y in row..self.size.y {
                put(x, y, color.mix(&PANEL, 0.75));
            }
            // From where the line was to where it is.
            let from = last.replace(row).unwrap_or(row);
            for y in from.min(row)..=from.max(row) {
                put(x, y, color);
            }
        }
        if let Some(row) = self.mark.map(|mark| self.row(mark)) {
            for x in (0..self.size.x).filter(|x| x % 4 < 2) {
                put(x, row, EDGE.lighter(0.2));
            }
        }
    }
}

/// Shows the latest value of a plot.
#[derive(Component)]
pub struct Reading;

/// Returns a plot with its title and its latest value above it.
pub fn plot<M: Bundle>(
    title: &'static str,
    plot: Plot,
    images: &mut Assets<Image>,
    marker: M,
) -> impl Bundle + use<M> {
    let size = plot.size.as_vec2() * PIXEL;
    let picture = Node {
        width: px(size.x),
        height: px(size.y),
        ..default()
    };
    let frame = Node {
        flex_direction: FlexDirection::Column,
        row_gap: px(6),
        padding: UiRect::all(px(10)),
        border_radius: BorderRadius::all(px(8)),
        ..default()
    };
    let head = Node {
        justify_content: JustifyContent::SpaceBetween,
        ..default()
    };
    let font = TextFont::from_font_size(13.0);
    let head = (
        head,
        children![
            (Text::new(title), font.clone(), TextColor(DIM)),
            (Text::default(), font, TextColor(TEXT), Reading),
        ],
    );
    (
        frame,
        BackgroundColor(PANEL),
        marker,
        children![head, (picture, canvas(plot.size, images), plot)],
    )
}

/// Draws the plots that have changed.
pub fn draw_plots(
    plots: Query<(&Plot, &ImageNode), Changed<Plot>>,
    mut images: ResMut<Assets<Image>>,
) {
    for (plot, node) in &plots {
        if let Some(mut image) = images.get_mut(&node.image) {
            plot.draw(&mut image);
        }
    }
}
