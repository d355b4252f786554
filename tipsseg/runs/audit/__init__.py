"""`tipsseg audit`: find labels of other tools that the model doubts."""
