//! The few bpf(2) commands that aya keeps to itself: pins, links by file descriptor, and batches.
//!
//! Links are made here and not through `aya::programs::Xdp::attach`, because that falls back to the
//! netlink interface when the kernel refuses, and such an attachment cannot be pinned.

use std::{
    ffi::CString,
    io, mem,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const MAP_LOOKUP_BATCH: libc::c_long = 24;
const MAP_UPDATE_BATCH: libc::c_long = 26;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;

/// `enum bpf_attach_type`.
const BPF_XDP: u32 = 37;
/// The same: ingress of the stack, since Linux 6.6.
const BPF_TCX_INGRESS: u32 = 46;
/// `XDP_FLAGS_SKB_MODE`.
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
/// `XDP_FLAGS_DRV_MODE`.
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Where in the receive path a link runs its program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LinkMode {
    Driver,
    Skb,
}

/// What the kernel says of an XDP link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LinkInfo {
    pub(super) program: u32,
    /// 0 when the interface is gone.
    pub(super) ifindex: u32,
}

/// Part of a map, as a batch look-up gives it: keys and values one behind the other.
#[derive(Default, Debug)]
pub(super) struct Batch {
    pub(super) keys: Vec<u8>,
    pub(super) values: Vec<u8>,
    /// Where to go on; `None` at the end.
    pub(super) next: Option<u32>,
}

#[repr(C)]
#[derive(Default)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    fd: u32,
    len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link: u32,
    new_program: u32,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    elem_flags: u64,
    flags: u64,
}

/// `struct bpf_link_info`, as far as it concerns XDP links, and room for what newer kernels append.
#[repr(C)]
#[derive(Default)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    pad: u32,
    ifindex: u32,
    rest: [u32; 27],
}

/// Runs a command; `attr` must be the kernel's layout for it, with every pointer in it valid.
unsafe fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the caller vouches for the attribute; its size is passed along.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), mem::size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn new_fd(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    // SAFETY: the command returned a fresh descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Opens a pinned map, program or link.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, ..Default::default() };
    // SAFETY: the path outlives the call.
    new_fd(unsafe { bpf(OBJ_GET, &mut attr) }?)
}

/// Pins a map, program or link.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, fd: raw(fd), flags: 0 };
    // SAFETY: the path outlives the call.
    unsafe { bpf(OBJ_PIN, &mut attr) }.map(drop)
}

/// Opens a loaded program.
pub(super) fn program(id: u32) -> io::Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    // SAFETY: the command takes id, next id and flags; no pointers.
    new_fd(unsafe { bpf(PROG_GET_FD_BY_ID, &mut attr) }?)
}

/// Attaches a program to an interface, for as long as the link is open or pinned.
pub(super) fn link(program: BorrowedFd<'_>, ifindex: u32, mode: LinkMode) -> io::Result<OwnedFd> {
    let flags = match mode {
        LinkMode::Driver => XDP_FLAGS_DRV_MODE,
        LinkMode::Skb => XDP_FLAGS_SKB_MODE,
    };
    let mut attr = LinkCreateAttr { program: raw(program), ifindex, attach_type: BPF_XDP, flags };
    // SAFETY: no pointers.
    new_fd(unsafe { bpf(LINK_CREATE, &mut attr) }?)
}

/// Attaches a program at the ingress of the stack, behind those that are there.
pub(super) fn link_ingress(program: BorrowedFd<'_>, ifindex: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr { program: raw(program), ifindex, attach_type: BPF_TCX_INGRESS, flags: 0 };
    // SAFETY: no pointers.
    new_fd(unsafe { bpf(LINK_CREATE, &mut attr) }?)
}

/// Replaces the program of a link; no packet meets the interface without one.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr { link: raw(link), new_program: raw(program), flags: 0, old_program: 0 };
    // SAFETY: no pointers.
    unsafe { bpf(LINK_UPDATE, &mut attr) }.map(drop)
}

/// Takes a link off its interface at once; without this, the kernel does so some time after the last pin is gone.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = raw(link);
    // SAFETY: the command takes the link alone.
    unsafe { bpf(LINK_DETACH, &mut attr) }.map(drop)
}

/// What the kernel says of an XDP link.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = RawLinkInfo::default();
    let mut attr = InfoAttr {
        fd: raw(link),
        len: mem::size_of::<RawLinkInfo>() as u32,
        info: std::ptr::from_mut(&mut info) as u64,
    };
    // SAFETY: `info` has the length given and outlives the call.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(LinkInfo { program: info.program, ifindex: info.ifindex })
}

/// Reads about `count` entries of a hash or array map from `cursor` on.
///
/// A hash map is read bucket by bucket: entries that stay are seen exactly once.
pub(super) fn lookup_batch(
    map: impl AsFd,
    sizes: (usize, usize),
    cursor: Option<u32>,
    count: usize,
) -> io::Result<Batch> {
    let (key_size, value_size) = sizes;
    let mut room = count.max(1);
    loop {
        let mut batch =
            Batch { keys: vec![0; room * key_size], values: vec![0; room * value_size], next: None };
        let (from, mut next) = (cursor.unwrap_or_default(), 0_u32);
        let mut attr = BatchAttr {
            in_batch: if cursor.is_some() { std::ptr::from_ref(&from) as u64 } else { 0 },
            out_batch: std::ptr::from_mut(&mut next) as u64,
            keys: batch.keys.as_mut_ptr() as u64,
            values: batch.values.as_mut_ptr() as u64,
            count: room as u32,
            map: raw(map.as_fd()),
            ..Default::default()
        };
        // SAFETY: both buffers have room for `count` entries; the cursors are four bytes, the size of a
        // bucket number and of an array's key.
        let result = unsafe { bpf(MAP_LOOKUP_BATCH, &mut attr) };
        match result.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) => batch.next = Some(next),
            Err((Some(libc::ENOENT), _)) => {}
            // A bucket has more entries than there is room for.
            Err((Some(libc::ENOSPC), _)) if room < 1 << 24 => {
                room *= 2;
                continue;
            }
            Err((_, error)) => return Err(error),
        }
        batch.keys.truncate(attr.count as usize * key_size);
        batch.values.truncate(attr.count as usize * value_size);
        return Ok(batch);
    }
}

/// Writes entries of a hash or array map.
pub(super) fn update_batch<K: aya::Pod, V: aya::Pod>(
    map: impl AsFd,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    let count = keys.len().min(values.len());
    let mut done = 0;
    while done < count {
        let mut attr = BatchAttr {
            keys: keys[done..].as_ptr() as u64,
            values: values[done..].as_ptr() as u64,
            count: (count - done) as u32,
            map: raw(map.as_fd()),
            ..Default::default()
        };
        // SAFETY: both slices hold at least `count` entries of the map's key and value types.
        unsafe { bpf(MAP_UPDATE_BATCH, &mut attr) }?;
        done += attr.count as usize;
    }
    Ok(())
}

/// A map type from its bytes; `None` when they are not as many as it has.
pub(super) fn decode<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: the length fits, any bytes are a valid `Pod`, and the read does not need alignment.
    (bytes.len() == mem::size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// The bytes of map types.
pub(super) fn bytes_of<T: aya::Pod>(values: &[T]) -> &[u8] {
    // SAFETY: a `Pod` has no padding that is not written, and bytes have no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), mem::size_of_val(values)) }
}
