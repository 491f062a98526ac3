//! Conversions between the store's types and SQLite's: numbers, texts and errors.

use std::fmt::Display;

use rusqlite::{ErrorCode, Row, ffi::SQLITE_IOERR_SHMSIZE, types::Type};

use crate::model::{absence::AwayReason, rows::StoreError};

/// Converts a number for SQLite, which has no unsigned ones. One that does not fit becomes the
/// largest.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Typed reads of a row's columns. A value that was not written so is an error, never a guess.
pub(super) trait Columns {
    /// Reads a number that was written by [`int`].
    fn nat(&self, column: usize) -> rusqlite::Result<u64>;

    /// Reads a number of 32 bits.
    fn small(&self, column: usize) -> rusqlite::Result<u32>;

    /// Reads a text and parses it as its type.
    fn word<T, E>(&self, column: usize) -> rusqlite::Result<T>
    where
        T: TryFrom<String, Error = E>,
        E: Display;

    /// Reads bytes of a fixed length, or NULL.
    fn bytes_or_null<const N: usize>(&self, column: usize) -> rusqlite::Result<Option<[u8; N]>>;
}

impl Columns for Row<'_> {
    fn nat(&self, column: usize) -> rusqlite::Result<u64> {
        let value: i64 = self.get(column)?;
        u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
    }

    fn small(&self, column: usize) -> rusqlite::Result<u32> {
        let value: i64 = self.get(column)?;
        u32::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
    }

    fn word<T, E>(&self, column: usize) -> rusqlite::Result<T>
    where
        T: TryFrom<String, Error = E>,
        E: Display,
    {
        let text: String = self.get(column)?;
        T::try_from(text).map_err(|why| malformed(column, &why))
    }

    fn bytes_or_null<const N: usize>(&self, column: usize) -> rusqlite::Result<Option<[u8; N]>> {
        self.get(column)
    }
}

/// Error for a stored value that does not parse as its type.
pub(super) fn malformed(column: usize, why: &dyn Display) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Text, why.to_string().into())
}

/// Maps errors that pass by themselves to [`StoreError::Away`], all others to
/// [`StoreError::Broken`].
impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let why = error.to_string();
        let reason = match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed,
            ) => AwayReason::Locked,
            Some(ErrorCode::DiskFull) => AwayReason::Full,
            // The index of the log has no room to grow; SQLite has no better code for it.
            _ if error.sqlite_extended_error_code() == Some(SQLITE_IOERR_SHMSIZE) => {
                AwayReason::Full
            }
            Some(ErrorCode::ReadOnly) => AwayReason::ReadOnly,
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted,
            ) => AwayReason::Failing,
            _ => return Self::Broken { why },
        };
        Self::Away { reason, why }
    }
}
