//! Equal numbers: which of them max pooling passes the gradient to, and when a label is among the first.

mod support;

use decorr::autodiff::gradients_from;
use decorr::graph::Graph;
use decorr::ops::Pool2d;

/// PyTorch gives the gradient to the first of equal numbers. Two kernels: windows apart, and windows that overlap.
#[test]
fn max_pooling_passes_the_gradient_to_the_first_of_equal_numbers() {
    for (kernel_size, stride, side, wanted) in [
        (2, 2, 2, vec![1.0, 0.0, 0.0, 0.0]),
        (2, 1, 3, vec![1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
        (3, 2, 3, [vec![1.0], vec![0.0; 8]].concat()),
    ] {
        let g = Graph::new();
        let x = g.input("x", [1, 1, side, side]);
        let y = x.max_pool2d(Pool2d::new(kernel_size).stride(stride));
        let seed = g.constant(1.0, y.shape());
        let grads = gradients_from(&[(y, seed)], &[x]);
        g.output("grad", grads[0]);
        let ones = vec![1.0; side * side];
        let values = support::run(&g, &[("x", &ones)]).unwrap();
        assert_eq!(values["grad"], wanted, "k {kernel_size}, stride {stride}");
    }
}

/// Pixels between windows are in none, however large.
#[test]
fn max_pooling_passes_nothing_to_pixels_between_windows() {
    let g = Graph::new();
    let x = g.input("x", [1, 1, 5, 5]);
    let y = x.max_pool2d(Pool2d::new(2).stride(3));
    let seed = g.constant(1.0, y.shape());
    g.output("grad", gradients_from(&[(y, seed)], &[x])[0]);
    // The largest of each window is its last pixel, and all pixels outside are as large.
    let is_first = |i: usize| i.is_multiple_of(3);
    let is_outside = |i: usize| i % 3 == 2;
    let at = |i: usize| (i / 5, i % 5);
    let is_largest = |(row, column): (usize, usize)| {
        is_outside(row) || is_outside(column) || !(is_first(row) || is_first(column))
    };
    let values: Vec<f32> = (0..25)
        .map(|i| f32::from(u8::from(is_largest(at(i)))))
        .collect();
    let found = support::run(&g, &[("x", &values)]).unwrap();
    let wanted: Vec<f32> = (0..25)
        .map(|i| {
            let (row, column) = at(i);
            f32::from(u8::from(row % 3 == 1 && column % 3 == 1))
        })
        .collect();
    assert_eq!(found["grad"], wanted);
}

/// Of equal logits the one with the lower number comes first, as in PyTorch's `topk` on a CPU.
#[test]
fn of_equal_logits_the_first_class_comes_first() {
    let g = Graph::new();
    let logits = g.input("logits", [3, 4]);
    let labels = g.input("labels", [3]);
    g.output("hits", logits.top_k_accuracy(labels, 1));
    let equal = vec![0.5; 12];
    let values = support::run(&g, &[("logits", &equal), ("labels", &[0.0, 1.0, 1.0])]).unwrap();
    assert_eq!(values["hits"], [1.0, 0.0, 0.0]);
}
