//! The product of matrices, on one thread: candle's `gemm` behind slices.

use gemm::{Parallelism, gemm};

/// Numbers as a matrix: how far apart its rows and its columns are. Rows may overlap.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Matrix<'a> {
    pub(in super::super) numbers: &'a [f32],
    pub(in super::super) row: usize,
    pub(in super::super) column: usize,
}

impl<'a> Matrix<'a> {
    /// Row after row.
    pub(in super::super) fn rows(numbers: &'a [f32], row: usize) -> Self {
        Self {
            numbers,
            row,
            column: 1,
        }
    }

    /// Column after column.
    pub(in super::super) fn columns(numbers: &'a [f32], column: usize) -> Self {
        Self {
            numbers,
            row: 1,
            column,
        }
    }

    fn has(&self, rows: usize, columns: usize) -> bool {
        (rows - 1) * self.row + (columns - 1) * self.column < self.numbers.len()
    }
}

/// Adds `scale` times `left · right` to `to`, or writes it there. `left` is `rows` by `inner`, `right` is `inner` by
/// `columns`; in `to` a row begins every `stride` numbers.
///
/// # Panics
/// One of them is not that large.
#[expect(unsafe_code, reason = "`gemm` takes pointers")]
pub(in super::super) fn multiply(
    (to, stride): (&mut [f32], usize),
    (rows, inner, columns): (usize, usize, usize),
    left: Matrix,
    right: Matrix,
    (scale, add): (f32, bool),
) {
    if rows == 0 || inner == 0 || columns == 0 {
        return;
    }
    assert!(left.has(rows, inner) && right.has(inner, columns));
    assert!(columns <= stride && (rows - 1) * stride + columns <= to.len());
    let strides = [stride, left.row, left.column, right.row, right.column];
    let [stride, left_row, left_column, right_row, right_column] = strides.map(|by| by as isize);
    // SAFETY: the assertions say that each index is in its slice: those of `left` and `right` are read, those of `to`,
    // which is borrowed mutably, are written, and no two of them are the same number.
    unsafe {
        gemm(
            rows,
            columns,
            inner,
            to.as_mut_ptr(),
            1,
            stride,
            add,
            left.numbers.as_ptr(),
            left_column,
            left_row,
            right.numbers.as_ptr(),
            right_column,
            right_row,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
