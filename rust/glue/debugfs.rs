// SPDX-License-Identifier: GPL-2.0

//! Folders and files in debugfs.
//!
//! A [`File`] is a name with a function that makes its content and a function that carries out a
//! command. The content is made when the file is read at offset 0, whole, so it has any length and
//! is consistent in itself; reading on from there goes on in the same content. One `write(2)` is
//! one command.
//!
//! An open file pins the module through `file_operations::owner`, which the files of
//! `kernel::debugfs` do not. Removing a file waits for calls that are in it.

use super::{
    refusal::{refusal, LastError, Outcome},
    text::Text, //
};
use core::{marker::PhantomData, ptr};
use kernel::{
    bindings,
    error::{from_err_ptr, from_result},
    ffi::{c_char, c_int, c_void},
    new_mutex,
    prelude::*,
    sync::{Arc, Mutex},
    types::ForeignOwnable,
    uaccess::UserSlice,
    ModuleMetadata, //
};

/// Longest command in bytes.
const MAX_COMMAND: usize = 64 << 10;

/// Mode of all files: root reads and writes.
const MODE: u16 = 0o600;

/// What files of a folder are about.
pub(crate) trait Target: Send + Sync + 'static {
    /// Where refused writes leave their reason.
    fn last_error(&self) -> &LastError;

    /// How the folder is called in a reason, with a slash; empty for the root.
    fn prefix(&self, text: &mut Text);
}

/// A file in a folder about a `T`.
pub(crate) struct File<T: 'static> {
    /// Its name.
    pub(crate) name: &'static CStr,
    /// Appends the content; `None` if it has none.
    pub(crate) read: Option<fn(&T, &mut Text) -> Result>,
    /// Carries out a command; `None` if it takes none.
    pub(crate) write: Option<fn(&T, &str) -> Outcome>,
}

/// An entry in debugfs, removed when dropped.
///
/// # Invariants
///
/// The pointer is a dentry that `debugfs_create_*()` gave us and nobody else removes: the entries
/// below it, which would go with it, hold a reference to this.
struct Entry(*mut bindings::dentry);

// SAFETY: The debugfs functions may be called by any thread.
unsafe impl Send for Entry {}
// SAFETY: As above; and they lock what they change.
unsafe impl Sync for Entry {}

impl Drop for Entry {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the entry is still there. This waits for calls in progress.
        unsafe { bindings::debugfs_remove(self.0) }
    }
}

/// A folder that others can be put into while it is referred to.
#[derive(Clone)]
pub(crate) struct Folder {
    entry: Arc<Entry>,
    /// Keeps the folder above, so that it goes after this one.
    _parent: Option<Arc<Entry>>,
}

/// A file that exists. The entry goes first, so that nobody is in the file any more when what it
/// points to goes.
struct OpenableFile<T: 'static> {
    _entry: Entry,
    _node: KBox<Node<T>>,
}

/// What an inode of ours points to.
struct Node<T: 'static> {
    file: &'static File<T>,
    target: Arc<T>,
}

/// A folder with files about a `T`. The files go first, then the folder.
pub(crate) struct Dir<T: 'static> {
    _files: KVec<OpenableFile<T>>,
    _folder: Folder,
}

impl<T: Target> Dir<T> {
    /// Makes a folder with files.
    ///
    /// # Errors
    ///
    /// Those of debugfs: no memory, or the name is taken.
    pub(crate) fn new(
        folder: Folder,
        files: &'static [File<T>],
        target: &Arc<T>,
    ) -> Result<Dir<T>> {
        let mut made = KVec::with_capacity(files.len(), GFP_KERNEL)?;
        for file in files {
            made.push(OpenableFile::new(&folder, file, target)?, GFP_KERNEL)?;
        }
        Ok(Dir {
            _files: made,
            _folder: folder,
        })
    }
}

impl Folder {
    /// Makes an empty folder, at the root of debugfs if there is no `parent`.
    ///
    /// # Errors
    ///
    /// Those of debugfs: no memory, or the name is taken.
    pub(crate) fn new(name: &CStr, parent: Option<&Folder>) -> Result<Folder> {
        let above = parent.map_or(ptr::null_mut(), |folder| folder.entry.0);
        // SAFETY: `name` is a C string, `above` a folder that `parent` keeps, or null.
        let dentry = unsafe { bindings::debugfs_create_dir(name.as_char_ptr(), above) };
        // INVARIANT: The entry is ours.
        let entry = Entry(from_err_ptr(dentry)?);
        Ok(Folder {
            entry: Arc::new(entry, GFP_KERNEL)?,
            _parent: parent.map(|folder| folder.entry.clone()),
        })
    }
}

impl<T: Target> OpenableFile<T> {
    fn new(folder: &Folder, file: &'static File<T>, target: &Arc<T>) -> Result<OpenableFile<T>> {
        let node = KBox::new(
            Node {
                file,
                target: target.clone(),
            },
            GFP_KERNEL,
        )?;
        // SAFETY: The name is a C string, the folder exists. The node outlives the file: it goes
        // after the entry, and `debugfs_remove()` waits until nobody uses the node. The operations
        // are static, and those for nodes of this type.
        let dentry = unsafe {
            bindings::debugfs_create_file_full(
                file.name.as_char_ptr(),
                MODE,
                folder.entry.0,
                ptr::from_ref::<Node<T>>(&node).cast_mut().cast::<c_void>(),
                ptr::null(),
                &Operations::<T>::TABLE,
            )
        };
        Ok(OpenableFile {
            // INVARIANT: The entry is ours.
            _entry: Entry(from_err_ptr(dentry)?),
            _node: node,
        })
    }
}

/// What an open file points to: the content that it is reading.
#[derive(Default)]
struct Content {
    text: Text,
    made: bool,
}

/// The C side of files whose inodes point to a `Node<T>`.
struct Operations<T>(PhantomData<T>);

/// Open files, as the kernel keeps them for us.
type Opened = Pin<KBox<Mutex<Content>>>;

impl<T: Target> Operations<T> {
    const TABLE: bindings::file_operations = bindings::file_operations {
        owner: <crate::PcpBuddy as ModuleMetadata>::THIS_MODULE.as_ptr(),
        open: Some(Self::open),
        read: Some(Self::read),
        write: Some(Self::write),
        llseek: Some(bindings::default_llseek),
        release: Some(Self::release),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `file` is a file of ours that debugfs holds for the duration of `'a`, as it does around
    /// `read()` and `write()`.
    unsafe fn node<'a>(file: *mut bindings::file) -> &'a Node<T> {
        // SAFETY: The inode of an open file exists and has the pointer that it was made with. By
        // caller precondition the entry has not been removed, so the node exists.
        unsafe { &*(*(*file).f_inode).i_private.cast::<Node<T>>() }
    }

    /// # Safety
    ///
    /// To be called by debugfs only.
    unsafe extern "C" fn open(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        from_result(|| {
            let content = new_mutex!(Content::default(), "debugfs::Content");
            let opened: Opened = KBox::pin_init(content, GFP_KERNEL)?;
            // SAFETY: The file is being opened, so it is ours.
            unsafe { (*file).private_data = opened.into_foreign().cast() };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// To be called by debugfs only. The node may be gone.
    unsafe extern "C" fn release(_inode: *mut bindings::inode, file: *mut bindings::file) -> c_int {
        // SAFETY: `open()` put it there, and nobody is in the file any more.
        drop(unsafe { Opened::from_foreign((*file).private_data.cast()) });
        0
    }

    /// # Safety
    ///
    /// To be called by debugfs only.
    unsafe extern "C" fn read(
        file: *mut bindings::file,
        buf: *mut c_char,
        count: usize,
        ppos: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: debugfs holds the file during the call.
        let node = unsafe { Self::node(file) };
        // SAFETY: `open()` put it there; `release()` comes after all reads.
        let opened = unsafe { Opened::borrow((*file).private_data.cast()) };
        // SAFETY: The caller's variable, used by nobody else during the call.
        let pos = unsafe { &mut *ppos };
        let user = UserSlice::new(UserPtr::from_ptr(buf.cast()), count);
        from_result(|| {
            let mut content = opened.lock();
            if *pos == 0 || !content.made {
                content.made = false;
                content.text.clear();
                node.file.read.ok_or(EINVAL)?(&node.target, &mut content.text)?;
                content.text.complete()?;
                content.made = true;
            }
            let written = user
                .writer()
                .write_slice_file(content.text.as_bytes(), pos)?;
            // CAST: at most what is allocated, so below `isize::MAX`.
            Ok(written as isize)
        })
    }

    /// # Safety
    ///
    /// To be called by debugfs only.
    unsafe extern "C" fn write(
        file: *mut bindings::file,
        buf: *const c_char,
        count: usize,
        _ppos: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: debugfs holds the file during the call.
        let node = unsafe { Self::node(file) };
        let user = UserSlice::new(UserPtr::from_ptr(buf.cast_mut().cast()), count);
        from_result(|| match node.command(user, count) {
            // CAST: commands longer than `MAX_COMMAND` are refused.
            Ok(()) => Ok(count as isize),
            Err(refusal) => Err(node.target.last_error().record(refusal)),
        })
    }
}

impl<T: Target> Node<T> {
    /// Carries out the command of `len` bytes at `user`.
    fn command(&self, user: UserSlice, len: usize) -> Outcome {
        let refuse = |errno, why: core::fmt::Arguments<'_>| {
            let mut path = Text::new();
            self.target.prefix(&mut path);
            let path = core::str::from_utf8(path.as_bytes()).unwrap_or("");
            Err(refusal!(
                errno,
                "{path}{}: {why}",
                self.file.name.to_str().unwrap_or("?")
            ))
        };
        let Some(write) = self.file.write else {
            return refuse(EINVAL, format_args!("takes no commands"));
        };
        if len > MAX_COMMAND {
            return refuse(
                E2BIG,
                format_args!("a command of {len} bytes, the limit is {MAX_COMMAND}"),
            );
        }
        let mut bytes = KVVec::new();
        match user
            .read_all(&mut bytes, GFP_KERNEL)
            .map(|()| core::str::from_utf8(&bytes))
        {
            Ok(Ok(line)) => write(&self.target, line),
            Ok(Err(_)) => refuse(EINVAL, format_args!("the command is not text")),
            Err(errno) => refuse(errno, format_args!("the command cannot be read")),
        }
    }
}
