"""Keys and tenants, for admins and for the operator."""
