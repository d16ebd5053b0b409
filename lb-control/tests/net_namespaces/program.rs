//! A program of another loader, as the product finds it on an interface.

use std::ffi::CString;
use std::process::Command;

/// A pinned program; unpinned with the value.
pub(crate) struct Pinned(String);

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Pinned {
    pub(crate) fn path(&self) -> &str {
        &self.0
    }
}

/// Loads `return XDP_PASS` under a name and pins it.
pub(crate) fn pass_program(name: &str) -> Pinned {
    /// The first fields of `union bpf_attr` for BPF_PROG_LOAD.
    #[repr(C)]
    #[derive(Default)]
    struct Load {
        kind: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log: [u64; 2],
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
    }
    /// The same for BPF_OBJ_PIN.
    #[repr(C)]
    struct Pin {
        path: u64,
        fd: u32,
        flags: u32,
    }
    fn bpf<T>(command: libc::c_long, attributes: &T) -> libc::c_long {
        // SAFETY: the attributes are laid out for the command and outlive the call.
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) }
    }

    if !std::fs::read_to_string("/proc/mounts").expect("mounts").contains(" /sys/fs/bpf bpf ") {
        let mount = Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]).status().expect("mount");
        assert!(mount.success(), "cannot mount bpffs");
    }
    // mov r0, XDP_PASS; exit
    let instructions: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];
    let mut load = Load {
        kind: 6,
        instruction_count: 2,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..Load::default()
    };
    load.name[..name.len()].copy_from_slice(name.as_bytes());
    let fd = bpf(5, &load);
    assert!(fd >= 0, "cannot load: {}", std::io::Error::last_os_error());
    let path = format!("/sys/fs/bpf/t-net-{}-{name}", std::process::id());
    let c_path = CString::new(path.as_str()).expect("no zero");
    let pinned = bpf(6, &Pin { path: c_path.as_ptr() as u64, fd: fd as u32, flags: 0 });
    // SAFETY: the descriptor was given to us above.
    unsafe { libc::close(fd as i32) };
    assert_eq!(pinned, 0, "cannot pin: {}", std::io::Error::last_os_error());
    Pinned(path)
}
