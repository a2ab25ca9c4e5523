//! The file system that SQLite uses: it passes every call on to that of the operating system, and records the
//! calls that change a file. A sync does not reach the disk of this machine, because the model says what it keeps.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::size_of;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use libsqlite3_sys::{
    SQLITE_FULL, SQLITE_IOERR_FSYNC, SQLITE_OK, sqlite3_file, sqlite3_filename, sqlite3_int64,
    sqlite3_io_methods, sqlite3_vfs, sqlite3_vfs_find, sqlite3_vfs_register,
};

use crate::{Disk, Event, Fault};

/// The disks of all tests of this process.
static DISKS: Mutex<Vec<Arc<Disk>>> = Mutex::new(Vec::new());

/// The file system of the operating system.
static SYSTEM: AtomicPtr<sqlite3_vfs> = AtomicPtr::new(ptr::null_mut());

/// Records the files of this disk.
pub(crate) fn record(disk: Arc<Disk>) {
    static REGISTER: Once = Once::new();
    REGISTER.call_once(register);
    DISKS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(disk);
}

fn register() {
    // SAFETY: SQLite returns its default file system, which lives for ever.
    let system = unsafe { sqlite3_vfs_find(ptr::null()) };
    assert!(!system.is_null(), "SQLite has a file system");
    SYSTEM.store(system, Ordering::Release);
    // SAFETY: the pointer is not null. The functions that are copied with it ignore their first argument.
    let mut own = unsafe { *system };
    own.szOsFile += c_int::try_from(size_of::<Recorded>()).expect("it is small");
    own.pNext = ptr::null_mut();
    own.zName = c"idem-power".as_ptr();
    own.xOpen = Some(open);
    own.xDelete = Some(delete);
    // SAFETY: the structure lives for ever.
    let registered = unsafe { sqlite3_vfs_register(Box::leak(Box::new(own)), 1) };
    assert_eq!(registered, SQLITE_OK);
}

/// An open file, as SQLite sees it. The file of the operating system follows in memory.
#[repr(C)]
struct Recorded {
    base: sqlite3_file,
    /// The disk and the name in its folder, or null for a file that is not recorded.
    place: *mut (Arc<Disk>, String),
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // Without `xFetch`, so that SQLite does not map files into memory.
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

/// The disk of this path, and the name in its folder.
fn place(path: *const c_char) -> Option<(Arc<Disk>, String)> {
    if path.is_null() {
        return None;
    }
    // SAFETY: SQLite passes a string that ends with a zero.
    let path = Path::new(unsafe { CStr::from_ptr(path) }.to_str().ok()?);
    let disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
    let disk = disks
        .iter()
        .find(|disk| path.parent() == Some(&disk.folder))?;
    Some((disk.clone(), path.file_name()?.to_str()?.to_owned()))
}

/// The file of the operating system that follows.
fn system(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: SQLite has reserved `szOsFile` bytes, which is the size of both.
    unsafe { file.cast::<Recorded>().add(1).cast() }
}

/// Calls a method of the file of the operating system.
macro_rules! pass_on {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        let file = system($file);
        // SAFETY: `open` has opened the file, and a file that is open has these methods.
        unsafe {
            let method = (*(*file).pMethods).$method.expect(stringify!($method));
            method(file $(, $argument)*)
        }
    }};
}

/// Records an event after the call succeeded.
fn done(file: *mut sqlite3_file, code: c_int, event: impl FnOnce(String) -> Event) -> c_int {
    // SAFETY: `open` has set the place.
    let place = unsafe { (*file.cast::<Recorded>()).place.as_ref() };
    if let Some((disk, name)) = place
        && code == SQLITE_OK
    {
        disk.add(event(name.clone()));
    }
    code
}

/// Whether the disk of a file has this fault.
fn fails(file: *mut sqlite3_file, fault: Fault) -> bool {
    // SAFETY: `open` has set the place.
    let place = unsafe { (*file.cast::<Recorded>()).place.as_ref() };
    place.is_some_and(|(disk, _)| disk.fails(fault))
}

fn position(number: sqlite3_int64) -> usize {
    usize::try_from(number).expect("a position is not negative")
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    path: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let vfs = SYSTEM.load(Ordering::Acquire);
    // SAFETY: SQLite's own file system gets SQLite's own arguments. On a failure its methods are null, and so
    // are those of this file.
    unsafe {
        let recorded = file.cast::<Recorded>();
        (*recorded).base.pMethods = ptr::null();
        let code = (*vfs).xOpen.expect("xOpen")(vfs, path, system(file), flags, out);
        if !(*system(file)).pMethods.is_null() {
            let place = place(path).map(Box::new);
            (*recorded).place = place.map_or(ptr::null_mut(), Box::into_raw);
            (*recorded).base.pMethods = &raw const METHODS;
        }
        code
    }
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, path: *const c_char, sync: c_int) -> c_int {
    let vfs = SYSTEM.load(Ordering::Acquire);
    // SAFETY: as in `open`.
    let code = unsafe { (*vfs).xDelete.expect("xDelete")(vfs, path, sync) };
    if let Some((disk, file)) = place(path)
        && code == SQLITE_OK
    {
        disk.add(Event::Remove { file });
    }
    code
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    let code = pass_on!(file, xClose);
    // SAFETY: `open` made the box, and SQLite closes a file once.
    unsafe {
        let place = (*file.cast::<Recorded>()).place;
        if !place.is_null() {
            drop(Box::from_raw(place));
        }
    }
    code
}

unsafe extern "C" fn write(
    file: *mut sqlite3_file,
    bytes: *const c_void,
    length: c_int,
    at: sqlite3_int64,
) -> c_int {
    if fails(file, Fault::Full) {
        return SQLITE_FULL;
    }
    let code = pass_on!(file, xWrite, bytes, length, at);
    done(file, code, |file| {
        let length = usize::try_from(length).expect("a length is not negative");
        // SAFETY: SQLite passes this many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) };
        Event::Write {
            file,
            at: position(at),
            bytes: bytes.to_vec(),
        }
    })
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    let code = pass_on!(file, xTruncate, size);
    let size = position(size);
    done(file, code, |file| Event::Truncate { file, size })
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, _: c_int) -> c_int {
    if fails(file, Fault::Sync) {
        return SQLITE_IOERR_FSYNC;
    }
    done(file, SQLITE_OK, |file| Event::Sync { file })
}

unsafe extern "C" fn read(
    file: *mut sqlite3_file,
    bytes: *mut c_void,
    length: c_int,
    at: sqlite3_int64,
) -> c_int {
    pass_on!(file, xRead, bytes, length, at)
}

unsafe extern "C" fn file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    pass_on!(file, xFileSize, size)
}

unsafe extern "C" fn lock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass_on!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut sqlite3_file, level: c_int) -> c_int {
    pass_on!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    pass_on!(file, xCheckReservedLock, out)
}

unsafe extern "C" fn file_control(
    file: *mut sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    pass_on!(file, xFileControl, operation, argument)
}

unsafe extern "C" fn sector_size(file: *mut sqlite3_file) -> c_int {
    pass_on!(file, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut sqlite3_file) -> c_int {
    pass_on!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    pass_on!(file, xShmMap, page, size, extend, out)
}

unsafe extern "C" fn shm_lock(
    file: *mut sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    pass_on!(file, xShmLock, offset, count, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut sqlite3_file) {
    pass_on!(file, xShmBarrier);
}

unsafe extern "C" fn shm_unmap(file: *mut sqlite3_file, delete: c_int) -> c_int {
    pass_on!(file, xShmUnmap, delete)
}
