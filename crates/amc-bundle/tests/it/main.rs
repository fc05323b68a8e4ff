//! Bundles and gates from outside: real logs, real keys, real scores, and every defect by name.

mod gate;
mod good;
mod hostile;
mod lies;
mod logs;
mod outside;
mod world;
