//! Placeholder front page.
#![deny(unsafe_code)]
