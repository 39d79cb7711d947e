//! Measures the product. See docs/performance.md.

fn main() {}
