"""What a build found, as one page; and what every page of headrace is made of."""
