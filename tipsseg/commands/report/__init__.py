"""`tipsseg report`: write an HTML page that shows the pictures, labels and statistics of a run offline."""
