//! Our convolution against candle's.

use proptest::prelude::*;

use super::*;
use crate::pipeline::ddpm::unet::kernels::tests::{largest, random};

fn both(shape: Shape) -> [Conv; 2] {
    let Shape {
        inputs,
        outputs,
        size,
        ..
    } = shape;
    let config = Conv2dConfig {
        stride: shape.stride,
        padding: shape.padding,
        ..Default::default()
    };
    let weights = random(&[outputs, inputs, size, size], 1);
    let plain = Conv2d::new(weights, Some(random(&[outputs], 2)), config);
    // Weights of its own: they are overwritten.
    let own = random(&[outputs, inputs, size, size], 1);
    let own = Conv2d::new(own, plain.bias().cloned(), config);
    let packed = Kernel::pack(own).expect("weights in another order");
    [Kernel::Plain(plain), packed].map(|kernel| Conv { shape, kernel })
}

/// Both ways give the same, whatever order the picture lies in.
#[track_caller]
fn assert_same(shape: Shape, [batch, height, width]: [usize; 3], added: bool) {
    let picture = random(&[batch, shape.inputs, height, width], 3);
    let (tall, wide) = shape.output(height, width);
    let onto = random(&[batch, shape.outputs, tall, wide], 4);
    let shift = random(&[batch, shape.outputs], 5);
    let (shift, onto) = (added.then_some(&shift), added.then_some(&onto));
    let [plain, packed] = both(shape);
    let expected = plain
        .forward_onto(&picture, shift, onto)
        .expect("a picture");
    let last = channels_last(&picture).and_then(|picture| channels_first(&picture));
    for picture in [picture, last.expect("the same")] {
        let made = packed.forward_onto(&picture, shift, onto);
        let made = made.expect("a picture");
        assert_eq!(made.dims(), expected.dims(), "{shape:?}");
        let error = largest(&(made - &expected).expect("the same shape"));
        assert!(error < 5e-6 * largest(&expected), "{shape:?}: {error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_is_candles_convolution(
        (inputs, outputs) in (1_usize..40, 1_usize..40),
        size in 1_usize..5,
        stride in 1_usize..4,
        padding in 0_usize..3,
        more in 0_usize..2,
        (batch, height, width) in (1_usize..4, 4_usize..13, 4_usize..13),
        added: bool,
    ) {
        let trailing = padding + more;
        let shape = Shape { inputs, outputs, size, stride, padding, trailing };
        assert_same(shape, [batch, height, width], added);
    }

    #[test]
    fn with_fewer_multiplications_it_is_the_same(
        (inputs, outputs) in (16_usize..70, 16_usize..70),
        (batch, down, across) in (1_usize..4, 2_usize..9, 4_usize..9),
        added: bool,
    ) {
        let shape = Shape::same(inputs, outputs);
        assert_same(shape, [batch, 4 * down, 4 * across], added);
    }
}

#[test]
fn what_is_large_enough_is_transformed() {
    let shape = Shape::same(128, 128);
    assert!(winograd::pays(&shape, (64, 64), 1));
    assert!(!winograd::pays(&shape, (62, 64), 1), "tiles do not fit");
    assert!(!winograd::pays(&Shape::halve(128, 1), (64, 64), 1));
    assert!(!winograd::pays(&Shape::same(3, 128), (64, 64), 1));
}
