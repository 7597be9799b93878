"""Files from elsewhere: fetched, checked and kept by their checksum."""
