//! The lock on the embedded mode's data directory. One process at a time writes the SQLite file; the
//! server writes its address into `eclusa.lock`, so that commands find the server.

use crate::config::{Mode, Settings};
use anyhow::{Context as _, bail};
use fd_lock::{RwLock, RwLockWriteGuard};
use std::fs::File;
use std::io::Write;

/// The lock on the data directory, held until the process ends.
pub struct EmbeddedLock {
    _guard: RwLockWriteGuard<'static, File>,
}

/// The process that holds the lock.
pub enum Holder {
    Us(EmbeddedLock),
    /// Another process: a server at this address, or a command, which has none.
    Server(Option<String>),
}

impl EmbeddedLock {
    /// Acquires the lock for a server; `None` in modes without a data directory.
    ///
    /// # Errors
    /// Another process holds the lock.
    pub fn of_server(settings: &Settings, address: &str) -> anyhow::Result<Option<Self>> {
        if settings.mode() != Mode::Embedded {
            return Ok(None);
        }
        match Self::take(settings, address)? {
            Holder::Us(lock) => Ok(Some(lock)),
            Holder::Server(other) => bail!(
                "the data in {} is in use by another Eclusa{}; stop it, or choose another directory \
                 with --data-dir",
                settings.data_dir.display(),
                other.map_or_else(String::new, |address| format!(" at {address}")),
            ),
        }
    }

    /// Acquires the lock, or returns its holder.
    ///
    /// # Errors
    /// The directory or the lock file cannot be created.
    pub fn take(settings: &Settings, address: &str) -> anyhow::Result<Holder> {
        let folder = &settings.data_dir;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create the directory {}", folder.display()))?;
        let path = folder.join("eclusa.lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        // Leaked: the guard borrows the lock, and both live until the process ends.
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
