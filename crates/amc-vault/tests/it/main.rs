//! The vault as programs use it: at the shipped cost, through the public interface only.

mod python;
mod shipped;
