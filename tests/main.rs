//! One integration binary: linking it is the expensive part, so every test of the whole is a module here.

mod house;
