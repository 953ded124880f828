//! One process at a time writes the embedded mode's file. The server holds a lock on
//! `eclusa.lock` and writes its address into it, so that the command line finds the server.

use crate::config::{Mode, Settings};
use anyhow::{Context as _, bail};
use fd_lock::{RwLock, RwLockWriteGuard};
use std::fs::File;
use std::io::Write;

/// The lock; held until the process ends.
pub struct EmbeddedLock {
    _guard: RwLockWriteGuard<'static, File>,
}

/// Who has the file.
pub enum Holder {
    /// This process, from now on.
    Us(EmbeddedLock),
    /// A server at this address (or another command, which has none).
    Server(Option<String>),
}

impl EmbeddedLock {
    /// Takes the lock for a server; `None` in modes that need none.
    ///
    /// # Errors
    /// When another process has it.
    pub fn of_server(settings: &Settings, address: &str) -> anyhow::Result<Option<Self>> {
        if settings.mode() != Mode::Embedded {
            return Ok(None);
        }
        match Self::take(settings, address)? {
            Holder::Us(lock) => Ok(Some(lock)),
            Holder::Server(other) => bail!(
                "the data in {} is in use by another Eclusa{}; stop it, or choose another folder \
                 with --data-dir",
                settings.data_dir.display(),
                other.map_or_else(String::new, |address| format!(" at {address}")),
            ),
        }
    }

    /// Takes the lock, or says who has it.
    ///
    /// # Errors
    /// When the folder or the lock file cannot be made.
    pub fn take(settings: &Settings, address: &str) -> anyhow::Result<Holder> {
        let folder = &settings.data_dir;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        let path = folder.join("eclusa.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        // Leaked on purpose: the guard borrows the lock, and both live until the process ends.
        let lock: &'static mut RwLock<File> = Box::leak(Box::new(RwLock::new(file)));
        match lock.try_write() {
            Ok(mut guard) => {
                guard.set_len(0)?;
                guard.write_all(address.as_bytes())?;
                Ok(Holder::Us(Self { _guard: guard }))
            }
            Err(_) => {
                let address = std::fs::read_to_string(&path).unwrap_or_default();
                let address = address.trim().to_owned();
                Ok(Holder::Server((!address.is_empty()).then_some(address)))
            }
        }
    }
}
