//! Placeholder front page.
fn main() {}
