//! The examples do what they say, one after the other on one log.

#![expect(clippy::duplicate_mod, reason = "each example is a program and brings its key")]

#[expect(dead_code, reason = "its `main` is for `cargo run --example`")]
#[path = "../examples/prove.rs"]
mod prove;
#[expect(dead_code, reason = "its `main` is for `cargo run --example`")]
#[path = "../examples/read.rs"]
mod read;
#[expect(dead_code, reason = "its `main` is for `cargo run --example`")]
#[path = "../examples/write.rs"]
mod write;

#[test]
fn a_log_is_written_read_and_proven() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = dir.path().join("log");
    for _ in 0..2 {
        write::run(&log).expect("appends a session");
        read::run(&log).expect("reads and verifies");
        prove::run(&log).expect("proves");
    }
    let missing = dir.path().join("none");
    assert!(read::run(&missing).is_err());
    assert!(prove::run(&missing).is_err());
}
