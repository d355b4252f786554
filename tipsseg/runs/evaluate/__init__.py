"""`tipsseg eval`: score labels against truth masks."""
