//! Placeholder front page.
#![forbid(unsafe_code)]
