//! Bundles and gates from outside: real logs, real keys, real scores, and every defect by name.

mod certs;
mod defects;
mod gate;
mod good;
mod hostile;
mod lies;
mod line;
mod logs;
mod missing;
mod outputs;
mod outside;
mod refused;
mod world;
