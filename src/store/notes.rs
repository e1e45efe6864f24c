//! Small things that a room wants to find again after a restart: bytes by a name.

use redb::{ReadableDatabase as _, TableDefinition, TableError};

use super::{Store, StoreError};

const NOTES: TableDefinition<&str, &[u8]> = TableDefinition::new("notes");

impl Store {
    /// What was noted under a name.
    ///
    /// # Errors
    /// [`StoreError::Database`] when the file cannot be read.
    pub fn note(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.within("reading the database", |database| match database.begin_read()?.open_table(NOTES) {
            Ok(notes) => Ok(notes.get(name)?.map(|bytes| bytes.value().to_vec())),
            // A database in which nothing has been noted yet.
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }

    /// Notes something under a name, in place of what was noted there before.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn keep_note(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.within("writing to the database", |database| {
            let transaction = database.begin_write()?;
            transaction.open_table(NOTES)?.insert(name, bytes)?;
            transaction.commit()?;
            Ok(())
        })
    }
}
