//! What this host has made elsewhere, or is about to: on disk before it is made, and struck out when it is gone.
//!
//! Books of records by name. What a record means is for whoever entered it; here it is bytes. One that was entered is there
//! after any crash, and so is the gap that a struck one left.

use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError};

use super::{Store, StoreError};

/// What a record is of. Each has a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Book {
    /// What was started on this host, and by what names its traces are known.
    Starts,
    /// What was registered in this host's name elsewhere.
    Registrations,
    /// Images that were fetched for work here.
    Images,
}

impl Book {
    const fn table(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(match self {
            Self::Starts => "starts",
            Self::Registrations => "registrations",
            Self::Images => "images",
        })
    }
}

impl Store {
    /// Enters a record, in place of the one of that name. It is on disk when this returns.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn enter(&self, book: Book, name: &str, record: &[u8]) -> Result<(), StoreError> {
        self.within("writing to the database", |database| {
            let transaction = database.begin_write()?;
            transaction.open_table(book.table())?.insert(name, record)?;
            Ok(transaction.commit()?)
        })
    }

    /// Strikes records out, all of these or none; those that are not there are passed over.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn strike(&self, book: Book, names: &[&str]) -> Result<(), StoreError> {
        if names.is_empty() {
            return Ok(());
        }
        self.within("writing to the database", |database| {
            let transaction = database.begin_write()?;
            {
                let mut table = transaction.open_table(book.table())?;
                for name in names {
                    table.remove(*name)?;
                }
            }
            Ok(transaction.commit()?)
        })
    }

    /// All records of a book, by name.
    ///
    /// # Errors
    /// [`StoreError::Database`] when the file cannot be read.
    pub fn records(&self, book: Book) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.within("reading the database", |database| match database.begin_read()?.open_table(book.table()) {
            Ok(table) => {
                let mut records = Vec::new();
                for record in table.iter()? {
                    let (name, bytes) = record?;
                    records.push((name.value().to_owned(), bytes.value().to_vec()));
                }
                Ok(records)
            }
            // Nothing has been entered yet.
            Err(TableError::TableDoesNotExist(_)) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        })
    }
}
