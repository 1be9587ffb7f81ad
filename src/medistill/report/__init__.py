"""What people look at: figures, the contact sheet and the HTML report."""
