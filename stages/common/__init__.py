"""What every stage needs: parameters and files, and how an error is told."""
