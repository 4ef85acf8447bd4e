"""What people say of answers, over HTTP."""
