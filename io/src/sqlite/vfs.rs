//! The C interface of the simulated VFS: pointers in, safe calls on [`OpenFile`] out.
//!
//! The only file with `unsafe`. It holds no logic beyond conversion, so that everything
//! that can be wrong in an interesting way is in safe code. What SQLite promises of every
//! pointer it hands in (<https://sqlite.org/c3ref/vfs.html>) is what each block relies on:
//! a file is used by one call at a time, is as large as `szOsFile`, and is closed exactly
//! once if `xOpen` set its methods. A panic in a callback aborts: it cannot unwind into C.
#![expect(unsafe_code, reason = "SQLite calls its VFS through C function pointers")]

use std::{
    ffi::{CStr, OsStr, c_char, c_int, c_void},
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr, slice,
    sync::Once,
};

use parking_lot::Mutex;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rusqlite::ffi;

use super::{
    file::{self, OpenFile},
    lock::Level,
    shm::{self, Request},
};

/// What the VFS is called in SQLite.
pub(crate) const NAME: &str = "weir-memory";
const NAME_C: &CStr = c"weir-memory";
const PATH_BYTES_MAX: c_int = 1024;
/// 2026-01-01 in SQLite's milliseconds since noon of day zero of the Julian calendar. SQL must
/// not ask for the time; if it does, it gets the same answer in every run.
const JULIAN_NOW_MS: i64 = 210_866_760_000_000 + 1_767_225_600_000;

static REGISTERED: Once = Once::new();
/// Where SQLite's process-wide generator takes its seed from.
static CHANCE: Mutex<Option<ChaCha8Rng>> = Mutex::new(None);

/// What SQLite allocates for a file: its own head, then ours.
#[repr(C)]
struct Slot {
    head: ffi::sqlite3_file,
    /// From `Box::into_raw` in `open`, back through `Box::from_raw` in `close`.
    file: *mut OpenFile,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Makes the VFS known to SQLite under [`NAME`], once, for as long as the process lives.
pub(crate) fn register() {
    REGISTERED.call_once(|| register_as(0));
}

/// Makes the VFS the default one and SQLite's generator start from `chance`.
pub(crate) fn reseed(chance: ChaCha8Rng) {
    register();
    *CHANCE.lock() = Some(chance);
    // SAFETY: the name is a C string; `register` has put a VFS under it that is never freed.
    let found = unsafe { ffi::sqlite3_vfs_find(NAME_C.as_ptr()) };
    assert!(!found.is_null(), "registered above");
    // SAFETY: `found` came from SQLite; registering again only moves it to the front.
    let made_default = unsafe { ffi::sqlite3_vfs_register(found, 1) };
    assert_eq!(made_default, ffi::SQLITE_OK);
    // SAFETY: no bytes and no buffer is SQLite's way to say "seed anew at the next use".
    unsafe { ffi::sqlite3_randomness(0, ptr::null_mut()) };
}

fn register_as(default: c_int) {
    let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: c_int::try_from(size_of::<Slot>()).expect("a slot is a few words"),
        mxPathname: PATH_BYTES_MAX,
        pNext: ptr::null_mut(),
        zName: NAME_C.as_ptr(),
        pAppData: ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        xDlOpen: Some(dl_open),
        xDlError: Some(dl_error),
        xDlSym: None,
        xDlClose: None,
        xRandomness: Some(randomness),
        xSleep: Some(sleep),
        xCurrentTime: Some(current_time),
        xGetLastError: Some(last_error),
        xCurrentTimeInt64: Some(current_time_ms),
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }));
    // SAFETY: `vfs` and its name live for ever, and every callback matches its declaration.
    let registered = unsafe { ffi::sqlite3_vfs_register(vfs, default) };
    assert_eq!(registered, ffi::SQLITE_OK, "registering allocates nothing");
}

/// The open file behind SQLite's pointer.
///
/// # Safety
/// `file` was opened by `open` and not yet closed, and no other call uses it meanwhile.
unsafe fn opened<'a>(file: *mut ffi::sqlite3_file) -> &'a mut OpenFile {
    // SAFETY: the caller's promise; `open` wrote a boxed file into the slot.
    unsafe { &mut *(*file.cast::<Slot>()).file }
}

/// A path of SQLite's.
///
/// # Safety
/// `name` is a C string that outlives the result.
unsafe fn path<'a>(name: *const c_char) -> &'a Path {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    Path::new(OsStr::from_bytes(name.to_bytes()))
}

/// SQLite's numbers are signed and never negative here.
fn offset(number: i64) -> u64 {
    u64::try_from(number).expect("SQLite's offsets and lengths are not negative")
}

fn count(number: c_int) -> usize {
    usize::try_from(number).expect("SQLite's counts are not negative")
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let slot = file.cast::<Slot>();
    // SAFETY: SQLite allocated `szOsFile` bytes, aligned for pointers. No methods: no close.
    unsafe { (*slot).head.pMethods = ptr::null() };
    let opened = if name.is_null() {
        OpenFile::open_anonymous()
    } else {
        // SAFETY: a name that is not null is a C string until the file is closed.
        OpenFile::open(unsafe { path(name) }, flags)
    };
    match opened {
        Ok(opened) => {
            // SAFETY: as above; `out_flags` is null or a place for the answer.
            unsafe {
                (*slot).file = Box::into_raw(Box::new(opened));
                (*slot).head.pMethods = &raw const METHODS;
                if !out_flags.is_null() {
                    *out_flags = flags;
                }
            }
            ffi::SQLITE_OK
        }
        Err(code) => code,
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes an opened file once; the box came from `open`.
    drop(unsafe { Box::from_raw((*file.cast::<Slot>()).file) });
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    buffer: *mut c_void,
    bytes: c_int,
    at: i64,
) -> c_int {
    // SAFETY: an open file; `buffer` holds `bytes` bytes, which need no initial value because
    // SQLite's buffers come from its allocator and are only written here.
    unsafe {
        ptr::write_bytes(buffer.cast::<u8>(), 0, count(bytes));
        let buffer = slice::from_raw_parts_mut(buffer.cast::<u8>(), count(bytes));
        opened(file).read(buffer, offset(at))
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    content: *const c_void,
    bytes: c_int,
    at: i64,
) -> c_int {
    // SAFETY: an open file; `content` holds `bytes` bytes.
    unsafe {
        let content = slice::from_raw_parts(content.cast::<u8>(), count(bytes));
        opened(file).write(content, offset(at))
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    // SAFETY: an open file.
    unsafe { opened(file) }.truncate(offset(len))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { opened(file) }.sync()
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, len: *mut i64) -> c_int {
    // SAFETY: an open file.
    match unsafe { opened(file) }.len() {
        Ok(bytes) => {
            // SAFETY: `len` is a place for the answer.
            unsafe { *len = i64::try_from(bytes).expect("lengths fit 63 bits") };
            ffi::SQLITE_OK
        }
        Err(code) => code,
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { opened(file) }.lock(Level::from_code(level))
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { opened(file) }.unlock(Level::from_code(level));
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(
    file: *mut ffi::sqlite3_file,
    reserved: *mut c_int,
) -> c_int {
    // SAFETY: an open file; `reserved` is a place for the answer.
    unsafe { *reserved = c_int::from(opened(file).is_reserved()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(
    _file: *mut ffi::sqlite3_file,
    _op: c_int,
    _argument: *mut c_void,
) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    address: *mut *mut c_void,
) -> c_int {
    // SAFETY: an open file.
    let mapped = unsafe { opened(file) }.shm_map(count(region), count(bytes), extend != 0);
    let (code, region) = match mapped {
        Ok(region) => (ffi::SQLITE_OK, region.unwrap_or(ptr::null_mut())),
        Err(code) => (code, ptr::null_mut()),
    };
    // SAFETY: `address` is a place for the answer. The region stays where it is until the
    // last mapping of its index is dropped, which is later than SQLite's last use.
    unsafe { *address = region.cast::<c_void>() };
    code
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    slots: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: an open file.
    unsafe { opened(file) }.shm_lock(count(first), count(slots), Request::from_flags(flags))
}

unsafe extern "C" fn shm_barrier(_file: *mut ffi::sqlite3_file) {
    shm::barrier();
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: an open file.
    unsafe { opened(file) }.shm_unmap();
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    sync_directory: c_int,
) -> c_int {
    // SAFETY: `name` is a C string for the length of the call.
    file::delete(unsafe { path(name) }, sync_directory != 0)
}

unsafe extern "C" fn access(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    present: *mut c_int,
) -> c_int {
    // SAFETY: `name` is a C string for the length of the call.
    match file::access(unsafe { path(name) }, flags) {
        Ok(answer) => {
            // SAFETY: `present` is a place for the answer.
            unsafe { *present = c_int::from(answer) };
            ffi::SQLITE_OK
        }
        Err(code) => code,
    }
}

unsafe extern "C" fn full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    bytes_max: c_int,
    full: *mut c_char,
) -> c_int {
    // SAFETY: `name` is a C string for the length of the call.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes_with_nul();
    if name.len() > count(bytes_max) {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: `full` has room for `bytes_max` bytes, and the two do not overlap.
    unsafe { ptr::copy_nonoverlapping(name.as_ptr().cast::<c_char>(), full, name.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn dl_open(_vfs: *mut ffi::sqlite3_vfs, _name: *const c_char) -> *mut c_void {
    // No extensions: SQLite asks for a symbol only of a library that was opened.
    ptr::null_mut()
}

unsafe extern "C" fn dl_error(_vfs: *mut ffi::sqlite3_vfs, _bytes: c_int, _text: *mut c_char) {}

unsafe extern "C" fn randomness(
    _vfs: *mut ffi::sqlite3_vfs,
    bytes: c_int,
    buffer: *mut c_char,
) -> c_int {
    // SAFETY: `buffer` holds `bytes` bytes, set before they are borrowed.
    let buffer = unsafe {
        ptr::write_bytes(buffer.cast::<u8>(), 0, count(bytes));
        slice::from_raw_parts_mut(buffer.cast::<u8>(), count(bytes))
    };
    CHANCE.lock().get_or_insert_with(|| ChaCha8Rng::seed_from_u64(0)).fill_bytes(buffer);
    bytes
}

unsafe extern "C" fn sleep(_vfs: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    // Nobody else runs meanwhile on a simulation's only thread: waiting changes nothing.
    micros
}

unsafe extern "C" fn current_time(_vfs: *mut ffi::sqlite3_vfs, days: *mut f64) -> c_int {
    const DAY_MS: i64 = 86_400_000;
    let whole = i32::try_from(JULIAN_NOW_MS / DAY_MS).expect("days since year -4712 fit 31 bits");
    // SAFETY: `days` is a place for the answer.
    unsafe { *days = f64::from(whole) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_ms(_vfs: *mut ffi::sqlite3_vfs, now: *mut i64) -> c_int {
    // SAFETY: `now` is a place for the answer.
    unsafe { *now = JULIAN_NOW_MS };
    ffi::SQLITE_OK
}

unsafe extern "C" fn last_error(
    _vfs: *mut ffi::sqlite3_vfs,
    _bytes: c_int,
    _text: *mut c_char,
) -> c_int {
    ffi::SQLITE_OK
}
