//! What only a system call tells about the machine, as one line of JSON.

use std::process::ExitCode;

/// Prints `{"landlock_abi": N}`; 0 where the kernel has none or it is switched off.
pub(crate) fn say() -> ExitCode {
    println!("{}", serde_json::json!({ "landlock_abi": landlock_abi() }));
    ExitCode::SUCCESS
}

/// `landlock_create_ruleset(2)` with this flag makes nothing and gives the version.
#[expect(unsafe_code, reason = "landlock_create_ruleset has no safe wrapper; it is given no memory")]
fn landlock_abi() -> i64 {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with a null attribute of size 0 and this flag the kernel reads and writes no memory.
    let abi =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<libc::c_void>(), 0_usize, VERSION) };
    abi.max(0)
}
