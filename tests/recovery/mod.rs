//! See the tests' own pages.

mod alive;
